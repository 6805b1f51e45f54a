#pragma once

// Workers as replicas of two Kubernetes workloads, one for each role, by their scale subresource:
// GET and PATCH of /apis/apps/v1/namespaces/NAMESPACE/RESOURCE/NAME/scale.
//
// The service account needs "get" and "patch" on these two subresources and nothing else.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "router/plan_executor.h"

namespace baton::router {

struct KubernetesOptions {
  std::string api = "https://kubernetes.default.svc";  // or http, of a proxy on this machine
  std::string space = "default";                       // namespace
  std::string prefill = "statefulsets/baton-prefill";  // or deployments/NAME
  std::string decode = "statefulsets/baton-decode";
  std::string token_file;  // bearer token, read for each call, since it is renewed; "": none
  std::string ca_file;     // "": the system's CAs
  Duration timeout = std::chrono::seconds(10);  // of a call
};

// InvalidArgument names what is malformed. Nothing is called yet. Calls fail with PermissionDenied
// (401, 403), NotFound, Aborted (409: somebody else has changed it since Replicas) or Unavailable,
// each with what the server says.
absl::StatusOr<std::unique_ptr<PlanExecutor>> KubernetesExecutor(const KubernetesOptions& options);

}  // namespace baton::router
