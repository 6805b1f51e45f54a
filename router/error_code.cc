#include "router/error_code.h"

#include "absl/strings/cord.h"

namespace baton::router {
namespace {

constexpr char kPayload[] = "baton/error_code";

}  // namespace

absl::Status WithErrorCode(absl::Status status, std::string_view code) {
  status.SetPayload(kPayload, absl::Cord(absl::string_view(code.data(), code.size())));
  return status;
}

std::string ErrorCode(const absl::Status& status) {
  const absl::optional<absl::Cord> code = status.GetPayload(kPayload);
  return code ? std::string(*code) : std::string();
}

}  // namespace baton::router
