#pragma once

// Workers that speak the real protocol to a router and compute nothing: a prompt's first token
// comes from its prefill worker at once, and a decode worker gives each of its sequences one token
// a step.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/ids.h"

namespace baton::bench {

struct SimulatedWorkersOptions {
  int32_t prefill = 2;
  int32_t decode = 2;
  std::string model = "simulated";
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  std::vector<TokenId> answer;                    // tokens of every answer, over and over
  Duration step = std::chrono::milliseconds(10);  // of a decode worker; zero: all tokens at once
};

// Threading: all methods are thread-safe. The destructor ends the workers.
class SimulatedWorkers {
 public:
  // Listens on free ports of 127.0.0.1.
  static absl::StatusOr<std::unique_ptr<SimulatedWorkers>> Start(
      const SimulatedWorkersOptions& options);
  virtual ~SimulatedWorkers() = default;

  virtual std::vector<std::string> addresses() const = 0;
  // From the next step on.
  virtual void SetStep(Duration step) = 0;
  virtual int64_t sequences() const = 0;  // being decoded now
};

}  // namespace baton::bench
