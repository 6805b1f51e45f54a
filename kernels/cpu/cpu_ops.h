#pragma once

// The fast backend: packed weights, one thread pool, kernels of one instruction set. Each op here
// cuts its work into pieces; the arithmetic is in isa_*.cc.

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/large_buffer.h"
#include "kernels/cpu/panel_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/weight_arena.h"
#include "kernels/ops.h"

namespace baton::kernels {

class CpuOps final : public Ops {
 public:
  CpuOps(const IsaKernels& isa, int32_t threads, int32_t max_rows, std::vector<int32_t> cpus);

  std::string Describe() const override;
  absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(const HostMatrix& host) override;
  void Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) override;
  void RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols, float epsilon,
               float* out) override;
  void MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
              std::span<float* const> outs, bool add) override;
  void RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab, int32_t layer,
                      int32_t heads, std::span<const SequenceRows> sequences, float* q,
                      const float* k, const float* v) override;
  void Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                 int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                 float* out) override;
  void SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out) override;

 private:
  // A piece of attention: all of a task, or one segment of it with the others in other pieces.
  struct AttentionPiece {
    AttentionTask task;
    int32_t segment;  // -1: all
    int32_t segments;
    int32_t shared;  // index into shared_, of a task in several pieces
  };
  // Where the pieces of one task meet: the last to finish merges.
  struct SharedTask {
    int64_t states;  // floats into states_
    std::atomic<int32_t> unfinished;
  };

  void ReserveActivations(int64_t cols);
  bool RoundsToBf16(const Matrix* matrix) const;  // the rows that it is multiplied by
  void PrepareActivations(std::span<const Matrix* const> weights, const float* x, int32_t rows);
  void AddPieces(std::span<const AttentionTask> tasks, bool split);
  void RunPiece(const AttentionPiece& piece, const AttentionPiece* next, int32_t thread);
  void RotateAndStoreRow(const Rope& rope, const KvLayout& layout, std::byte* slab, int32_t layer,
                         int32_t heads, const SequenceRows& sequence, int32_t index, float* q,
                         const float* k, const float* v, float* key) const;

  const IsaKernels& isa_;
  const int32_t max_rows_;
  ThreadPool pool_;
  WeightArena weights_;

  // The left side of a matrix product, for max_rows_ rows of the widest matrix loaded.
  LargeBuffer quants_, scales_, scaled_sums_, minus_sums_, minus_half_sums_, bf16_;
  Activations activations_{};
  LargeBuffer panel_scratch_;  // kPanelScratchBytes a thread

  LargeBuffer key_scratch_;        // one row's keys a thread
  LargeBuffer attention_scratch_;  // AttentionScratchFloats a thread
  std::vector<AttentionTask> row_tasks_;
  std::vector<AttentionPiece> pieces_;
  std::vector<SharedTask> shared_;
  int32_t shared_count_ = 0;
  int64_t state_floats_ = 0;
  LargeBuffer states_;
};

}  // namespace baton::kernels
