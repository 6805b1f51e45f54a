// Any bytes as each protobuf message that comes from outside: a client's, by both gRPC services,
// and those of the links between routers and workers, both ways. What is taken from a link goes
// back onto it as it came.
//
// Real fuzzing: as chat_template_fuzz.cc, with the libraries that grpc_message_fuzz links.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "router/grpc_convert.h"
#include "router/kserve_convert.h"
#include "worker_link/convert.h"

namespace baton {
namespace {

template <typename Message>
bool Parse(const uint8_t* data, size_t size, Message* message) {
  return message->ParseFromArray(data, static_cast<int>(size));
}

void Clients(const uint8_t* data, size_t size) {
  v1::GenerateRequest generate;
  if (Parse(data, size, &generate)) {
    const auto input = router::ToInput(generate);
    if (input.ok()) (void)router::CheckConstraint(*input);
  }
  v1::TokenizeRequest tokenize;
  if (Parse(data, size, &tokenize)) (void)router::ToInput(tokenize);
  inference::ModelInferRequest infer;
  if (!Parse(data, size, &infer)) return;
  const auto call = router::ToKserveCall(infer, router::RequestLimits{});
  if (call.ok()) (void)router::ToResponse(infer, *call, "model", "text", nullptr);
}

void Links(const uint8_t* data, size_t size) {
  v1::RouterMessage to_worker;
  if (Parse(data, size, &to_worker)) {
    const auto command = worker_link::CommandFromWire(to_worker);
    if (command.ok()) {
      v1::RouterMessage again;
      ToWire(*command, &again);
      if (!worker_link::CommandFromWire(again).ok()) std::abort();
    }
  }
  v1::WorkerMessage to_router;
  if (!Parse(data, size, &to_router)) return;
  (void)worker_link::FromWire(to_router.hello());
  (void)worker_link::FromWire(to_router.status());
  const auto events = worker_link::FromWire(to_router.events());
  if (!events.ok()) return;
  v1::WireEvents again;
  for (const worker_link::Event& event : *events) worker_link::AppendEvent(event, &again);
  const auto same = worker_link::FromWire(again);
  if (!same.ok() || same->size() != events->size()) std::abort();
}

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  baton::Clients(data, size);
  baton::Links(data, size);
  return 0;
}
