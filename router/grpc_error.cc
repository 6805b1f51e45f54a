#include "router/grpc_error.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <optional>
#include <string>

#include "baton/v1/baton.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "router/error_code.h"

namespace baton::router {
namespace {

constexpr char kDomain[] = "baton";

std::string ReasonOf(const absl::Status& status) {
  std::string reason = ErrorCode(status);
  if (reason.empty()) reason = absl::StatusCodeToString(status.code());
  std::transform(reason.begin(), reason.end(), reason.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return reason;
}

// Messages about a field begin with its name. "" for others.
std::string FieldOf(const absl::Status& status) {
  if (ErrorCode(status) == kContextLengthExceeded) return "input";
  const std::string message(status.message());
  const std::string word = message.substr(0, message.find(' '));
  if (v1::SamplingParams::descriptor()->FindFieldByName(word) != nullptr) return "sampling." + word;
  return v1::GenerateRequest::descriptor()->FindFieldByName(word) != nullptr ? word : "";
}

void SetDuration(Duration from, google::protobuf::Duration* to) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(from);
  to->set_seconds(seconds.count());
  to->set_nanos(static_cast<int32_t>((from - seconds).count()));
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  google::rpc::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_domain(kDomain);
  details.add_details()->PackFrom(info);
  if (const std::optional<Duration> retry = RetryAfter(status)) {
    google::rpc::RetryInfo retry_info;
    SetDuration(*retry, retry_info.mutable_retry_delay());
    details.add_details()->PackFrom(retry_info);
  }
  if (const std::string field = FieldOf(status);
      absl::IsInvalidArgument(status) && !field.empty()) {
    google::rpc::BadRequest bad;
    google::rpc::BadRequest::FieldViolation* const violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(details.message());
    details.add_details()->PackFrom(bad);
  }
  // absl and gRPC number their codes alike.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.SerializeAsString());
}

}  // namespace baton::router
