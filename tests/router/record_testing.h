#pragma once

// Records for tests of what is done with them.

#include <memory>
#include <string>

#include "router/request_record.h"

namespace baton::router {

// Of a call that came on 2026-11-22 at 01:02:03.000123 UTC.
inline std::shared_ptr<CallInfo> TestCall(const std::string& id = "call-1") {
  auto call = std::make_shared<CallInfo>();
  call->request_id = id;
  call->client = "10.0.0.9";
  call->endpoint = "/v1/chat/completions";
  call->received = TimePoint(std::chrono::hours(1));
  call->arrival_us = 1795309323000123;
  return call;
}

// A request that was handed over and decoded.
inline RequestRecord TestRecord(std::shared_ptr<const CallInfo> call = TestCall()) {
  using std::chrono::milliseconds;
  RequestRecord record;
  record.call = std::move(call);
  record.id = "0123456789abcdef-0000000000000001";
  record.key = "alice";
  record.tenant = "acme";
  record.model = "demo";
  record.finish_reason = "stop";
  record.input_tokens = 812;
  record.cached_tokens = 768;
  record.output_tokens = 64;
  record.max_tokens = 256;
  record.prefill_worker = "p0";
  record.decode_worker = "d0";
  record.transport = "shm";
  record.kv_bytes = 4096;
  record.prefill_chunks = 1;
  record.decode_steps = 63;
  record.itl_s = 0.0075;
  int at = 1;
  for (const Stage stage :
       {Stage::kTokenized, Stage::kPlaced, Stage::kPrefillStarted, Stage::kHandoffOffered,
        Stage::kHandoffGranted, Stage::kFirstChunk, Stage::kPrefillFinished, Stage::kFirstToken,
        Stage::kHandoffFinished, Stage::kDecodeStarted, Stage::kLastToken, Stage::kEnded}) {
    record.stages.Set(stage, milliseconds(at++));
  }
  return record;
}

}  // namespace baton::router
