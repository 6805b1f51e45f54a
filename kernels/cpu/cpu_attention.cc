#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"

namespace baton::kernels {
namespace {

int32_t SegmentsOf(const AttentionTask& task) {
  return (task.first_position + task.rows - 1) / kSegmentPositions + 1;
}

// Heads that share a kv head are taken together, but for the rare model with very many of them.
constexpr int32_t kMaxTaskHeads = 32;

constexpr int32_t kRunsPerThread = 16;

}  // namespace

void CpuOps::RotateAndStoreRow(const Rope& rope, const KvLayout& layout, std::byte* slab,
                               int32_t layer, int32_t heads, const SequenceRows& sequence,
                               int32_t index, float* q, const float* k, const float* v,
                               float* key) const {
  const RotatedPairs pairs =
      rope.pairs == RopePairs::kInterleaved ? RotatedPairs::kInterleaved : RotatedPairs::kHalves;
  const int64_t row = sequence.first_row + index;
  const int32_t position = sequence.first_position + index;
  const int32_t dim = layout.head_dim;
  const float* cosine = rope.cosine.data() + int64_t{position} * (rope.rotary_dim / 2);
  const float* sine = rope.sine.data() + int64_t{position} * (rope.rotary_dim / 2);
  isa_.rotate(pairs, rope.rotary_dim, cosine, sine, heads, dim, q + row * heads * dim);
  std::memcpy(key, k + row * layout.kv_heads * dim, sizeof(float) * layout.kv_heads * dim);
  isa_.rotate(pairs, rope.rotary_dim, cosine, sine, layout.kv_heads, dim, key);

  const int64_t block = sequence.block_table[position / layout.block_tokens];
  auto* base = reinterpret_cast<uint8_t*>(slab) + block * layout.block_bytes();
  for (int32_t h = 0; h < layout.kv_heads; ++h) {
    isa_.store_kv({.dtype = layout.dtype,
                   .head_dim = dim,
                   .block_tokens = layout.block_tokens,
                   .index = position % layout.block_tokens,
                   .key = key + h * dim,
                   .value = v + (row * layout.kv_heads + h) * dim,
                   .keys = base + layout.key_offset(layer, h),
                   .values = base + layout.value_offset(layer, h)});
  }
}

void CpuOps::RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab,
                            int32_t layer, int32_t heads, std::span<const SequenceRows> sequences,
                            float* q, const float* k, const float* v) {
  int64_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.row_count;
  const int64_t key_floats = int64_t{layout.kv_heads} * layout.head_dim;
  key_scratch_.Reserve(pool_.threads() * key_floats * sizeof(float));
  pool_.ParallelFor(rows, 16, [&](int64_t begin, int64_t end, int32_t thread) {
    float* key = reinterpret_cast<float*>(key_scratch_.data()) + thread * key_floats;
    int64_t first = 0;  // of the sequence's rows, counted over all sequences
    for (const SequenceRows& sequence : sequences) {
      const int64_t from = std::max(begin, first);
      const int64_t to = std::min(end, first + sequence.row_count);
      for (int64_t i = from; i < to; ++i) {
        RotateAndStoreRow(rope, layout, slab, layer, heads, sequence,
                          static_cast<int32_t>(i - first), q, k, v, key);
      }
      first += sequence.row_count;
    }
  });
}

// The tasks of the same rows, each in one piece or in one for each of its segments. What lies
// together in the cache, the kv heads of a segment, comes together.
void CpuOps::AddPieces(std::span<const AttentionTask> tasks, bool split) {
  const int32_t segments = SegmentsOf(tasks[0]);
  if (!split || segments == 1) {
    for (const AttentionTask& task : tasks) pieces_.push_back({task, -1, segments, -1});
    return;
  }
  const int32_t first_shared = shared_count_;
  for (const AttentionTask& task : tasks) {
    SharedTask& shared = shared_[shared_count_++];
    shared.states = state_floats_;
    shared.unfinished.store(segments, std::memory_order_relaxed);
    state_floats_ +=
        segments * SoftmaxStateFloats(int64_t{task.rows} * task.heads, PaddedDim(task.head_dim));
  }
  for (int32_t segment = 0; segment < segments; ++segment) {
    for (int32_t i = 0; i < std::ssize(tasks); ++i) {
      pieces_.push_back({tasks[i], segment, segments, first_shared + i});
    }
  }
}

void CpuOps::RunPiece(const AttentionPiece& piece, const AttentionPiece* next, int32_t thread) {
  AttentionTask task = piece.task;
  task.next = next == nullptr ? nullptr : &next->task;
  task.next_segment = next == nullptr ? 0 : std::max(next->segment, 0);
  const int64_t scratch_floats = AttentionScratchFloats(task.head_dim);
  task.scratch = reinterpret_cast<float*>(attention_scratch_.data()) + thread * scratch_floats;
  if (piece.segment < 0) {
    isa_.attend(task);
    return;
  }
  SharedTask& shared = shared_[piece.shared];
  float* states = reinterpret_cast<float*>(states_.data()) + shared.states;
  const int64_t state_floats =
      SoftmaxStateFloats(int64_t{task.rows} * task.heads, PaddedDim(task.head_dim));
  isa_.attend_segment(task, piece.segment, states + piece.segment * state_floats);
  if (shared.unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    isa_.merge_segments(task, states, piece.segments);
  }
}

void CpuOps::Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                       int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                       float* out) {
  const int32_t heads_per_kv = shape.heads / layout.kv_heads;
  const int32_t dim = layout.head_dim;
  const int32_t task_heads = std::min(heads_per_kv, kMaxTaskHeads);
  const int32_t task_rows = kMaxQueryVectors / task_heads;
  attention_scratch_.Reserve(pool_.threads() * AttentionScratchFloats(dim) * sizeof(float));

  const int64_t tasks_of_rows =
      int64_t{layout.kv_heads} * ((heads_per_kv + task_heads - 1) / task_heads);
  int64_t tasks = 0;
  for (const SequenceRows& sequence : sequences) {
    tasks += (sequence.row_count + task_rows - 1) / task_rows * tasks_of_rows;
  }
  // Whether a task's segments are shared out changes who computes, not what.
  const bool split = pool_.threads() > 1 && tasks < int64_t{4} * pool_.threads();
  if (std::ssize(shared_) < tasks) shared_ = std::vector<SharedTask>(2 * tasks);
  shared_count_ = 0;
  state_floats_ = 0;
  pieces_.clear();

  AttentionTask task{};
  task.slab = reinterpret_cast<const uint8_t*>(slab);
  task.block_tokens = layout.block_tokens;
  task.block_bytes = layout.block_bytes();
  task.head_dim = dim;
  task.dtype = layout.dtype;
  task.scale = shape.scale;
  task.row_stride = int64_t{shape.heads} * dim;
  for (const SequenceRows& sequence : sequences) {
    task.block_table = sequence.block_table.data();
    // The last rows first: they have the most to do.
    for (int32_t end = sequence.row_count; end > 0; end -= task.rows) {
      task.rows = std::min(end, task_rows);
      task.first_position = sequence.first_position + end - task.rows;
      const int64_t first_row = sequence.first_row + end - task.rows;
      row_tasks_.clear();
      for (int32_t kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
        task.key_offset = layout.key_offset(layer, kv_head);
        task.value_offset = layout.value_offset(layer, kv_head);
        for (int32_t h = 0; h < heads_per_kv; h += task_heads) {
          const int64_t offset =
              first_row * task.row_stride + (int64_t{kv_head} * heads_per_kv + h) * dim;
          task.heads = std::min(task_heads, heads_per_kv - h);
          task.q = q + offset;
          task.out = out + offset;
          row_tasks_.push_back(task);
        }
      }
      AddPieces(row_tasks_, split);
    }
  }
  states_.Reserve(state_floats_ * sizeof(float));
  // Runs of pieces, enough of them for balance. What a thread takes next mostly follows.
  const int64_t pieces = std::ssize(pieces_);
  const int64_t run = std::max<int64_t>(1, pieces / (kRunsPerThread * pool_.threads()));
  pool_.ParallelFor(pieces, run, [&](int64_t begin, int64_t end, int32_t thread) {
    for (int64_t i = begin; i < end; ++i) {
      RunPiece(pieces_[i], i + 1 < pieces ? &pieces_[i + 1] : nullptr, thread);
    }
  });
}

}  // namespace baton::kernels
