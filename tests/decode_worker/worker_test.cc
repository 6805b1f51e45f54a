#include "decode_worker/worker.h"

#include <gtest/gtest.h>

#include "tests/worker_common/worker_testing.h"

namespace baton::decode_worker {
namespace {

TEST(DecodeWorker, SaysWhoAndWhereItIs) {
  worker_common::TinyModel model;
  auto options = model.Options("decode-7", 16);
  options.served_model = "tiny-chat";
  const worker_common::RunningWorker<DecodeWorker> worker(options);
  worker_common::TestRouter router(worker->address());
  EXPECT_EQ(router.info().name, "decode-7");
  EXPECT_EQ(router.info().role, worker_link::Role::kDecode);
  EXPECT_EQ(router.info().model, "tiny-chat");
  EXPECT_EQ(router.info().incarnation, worker->info().incarnation);
  router.ExpectIdle();
}

TEST(DecodeWorker, ADrainedWorkerEndsAtOnceWhenItHasNothingToDo) {
  worker_common::TinyModel model;
  worker_common::RunningWorker<DecodeWorker> worker(model.Options("decode-7", 16));
  worker->Drain();
  worker.Join();
}

TEST(DecodeWorker, IsNotMadeWithoutAModel) {
  worker_common::WorkerOptions options;
  options.model_path = "/nowhere.gguf";
  EXPECT_EQ(DecodeWorker::Create(options).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace baton::decode_worker
