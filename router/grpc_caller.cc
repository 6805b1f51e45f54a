#include "router/grpc_caller.h"

#include <algorithm>
#include <chrono>

namespace baton::router {

std::string AuthorizationOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return "";
  return {found->second.data(), found->second.size()};
}

absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              const grpc::CallbackServerContext& context) {
  return ComeIn(gate, dispatcher, AuthorizationOf(context));
}

absl::Status CheckKey(const KeyGate* gate, const grpc::CallbackServerContext& context) {
  return gate == nullptr ? absl::OkStatus() : gate->Check(AuthorizationOf(context));
}

Duration TimeLeft(const grpc::CallbackServerContext& context) {
  using std::chrono::system_clock;
  const system_clock::time_point deadline = context.deadline();
  const system_clock::time_point now = system_clock::now();
  constexpr auto kNever = std::chrono::hours(24 * 365);  // as good as none
  if (deadline - now > kNever) return Duration::zero();
  return std::max<Duration>(std::chrono::duration_cast<Duration>(deadline - now),
                            std::chrono::milliseconds(1));
}

}  // namespace baton::router
