#include "prefill_worker/worker.h"

#include <gtest/gtest.h>

#include "tests/worker_common/worker_testing.h"

namespace baton::prefill_worker {
namespace {

TEST(PrefillWorker, SaysWhoAndWhereItIs) {
  worker_common::TinyModel model;
  auto options = model.Options("prefill-7", 16);
  options.served_model = "tiny-chat";
  const worker_common::RunningWorker<PrefillWorker> worker(options);
  worker_common::TestRouter router(worker->address());
  EXPECT_EQ(router.info().name, "prefill-7");
  EXPECT_EQ(router.info().role, worker_link::Role::kPrefill);
  EXPECT_EQ(router.info().model, "tiny-chat");
  EXPECT_EQ(router.info().incarnation, worker->info().incarnation);
  router.ExpectIdle();
}

TEST(PrefillWorker, ADrainedWorkerEndsAtOnceWhenItHasNothingToDo) {
  worker_common::TinyModel model;
  worker_common::RunningWorker<PrefillWorker> worker(model.Options("prefill-7", 16));
  worker->Drain();
  worker.Join();
}

TEST(PrefillWorker, IsNotMadeWithoutAModel) {
  worker_common::WorkerOptions options;
  options.model_path = "/nowhere.gguf";
  EXPECT_EQ(PrefillWorker::Create(options).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace baton::prefill_worker
