#pragma once

// Sends a load through a LoadClient: at given times whatever the server does (open), or as many at
// a time (closed). The times of an open load are set beforehand, so a slow server cannot make it
// wait for its own answers, and a request that is sent late counts from when it was due.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/load_client.h"

namespace baton::bench {

struct LoadSource {
  std::function<std::string(int64_t number)> request;  // its bytes; numbers go up from 0
  std::function<void(int64_t number, LoadAnswer)> on_answer;
  std::function<bool()> stop;  // asked now and then: no more requests; may be null
};

// One request for each of `due_s`, which ascend, in seconds from now. Returns when all have ended,
// or, once stopped, when what was sent has.
void RunOpenLoad(LoadClient* client, const std::vector<double>& due_s, const LoadSource& source);

// `count` requests, `concurrency` of them at a time.
void RunClosedLoad(LoadClient* client, int64_t count, int64_t concurrency,
                   const LoadSource& source);

}  // namespace baton::bench
