#include "kernels/cuda/cuda_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_matrix.h"

namespace baton::kernels {
namespace cuda {
namespace {

constexpr Stream kStream = nullptr;
constexpr int32_t kLeastCapability = 80;
constexpr int32_t kMostHeadDim = 256;
// Of the softmaxes of segments; where they need more, a block does all segments of its queries.
constexpr int64_t kMostSoftmaxBytes = int64_t{64} << 20;

void Must(const absl::Status& status, const char* op) {
  if (status.ok()) return;
  fmt::print(stderr, "the GPU failed in {}: {}\n", op, std::string(status.message()));
  std::abort();
}

class DeviceBuffer final : public Buffer {
 public:
  explicit DeviceBuffer(void* memory) : memory_(memory) {}
  ~DeviceBuffer() override { Free(memory_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  std::byte* data() override { return static_cast<std::byte*>(memory_); }

 private:
  void* const memory_;
};

class CudaMatrix final : public Matrix {
 public:
  static absl::StatusOr<std::unique_ptr<Matrix>> Load(const PackedWeights& packed) {
    auto matrix = std::make_unique<CudaMatrix>();
    matrix->weights_ = packed.shape;
    const auto value_bytes = static_cast<int64_t>(packed.values.size());
    const auto scale_bytes = static_cast<int64_t>(packed.scales.size() * sizeof(Scale));
    BATON_ASSIGN_OR_RETURN(void* values, Allocate(value_bytes));
    matrix->values_ = std::make_unique<DeviceBuffer>(values);
    matrix->weights_.values = values;
    BATON_RETURN_IF_ERROR(CopyToDevice(values, packed.values.data(), value_bytes));
    if (scale_bytes > 0) {
      BATON_ASSIGN_OR_RETURN(void* scales, Allocate(scale_bytes));
      matrix->scales_ = std::make_unique<DeviceBuffer>(scales);
      matrix->weights_.scales = static_cast<const Scale*>(scales);
      BATON_RETURN_IF_ERROR(CopyToDevice(scales, packed.scales.data(), scale_bytes));
    }
    matrix->bytes_ = value_bytes + scale_bytes;
    return matrix;
  }

  int64_t rows() const override { return weights_.rows; }
  int64_t cols() const override { return weights_.cols; }
  int64_t bytes() const override { return bytes_; }
  const Weights& weights() const { return weights_; }

 private:
  Weights weights_;
  std::unique_ptr<Buffer> values_, scales_;
  int64_t bytes_ = 0;
};

const Weights& WeightsOf(const Matrix* matrix) {
  return static_cast<const CudaMatrix*>(matrix)->weights();
}

Cache CacheOf(const KvLayout& layout, int32_t layer) {
  return {.dtype = layout.dtype,
          .together = Traits(layout.dtype).together,
          .kv_heads = layout.kv_heads,
          .head_dim = layout.head_dim,
          .block_tokens = layout.block_tokens,
          .data_bytes = layout.data_bytes(),
          .head_bytes = layout.head_bytes(),
          .block_bytes = layout.block_bytes(),
          .key_offset = layout.key_offset(layer, 0),
          .value_offset = layout.value_offset(layer, 0)};
}

template <typename T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> CudaOps::Create(const CudaOptions& options) {
  if (options.max_rows < 1 || options.max_rows > 65'535) {
    return absl::InvalidArgumentError(
        fmt::format("steps of {} rows are outside 1..65535", options.max_rows));
  }
  BATON_ASSIGN_OR_RETURN(DeviceInfo info, OpenDevice(options.gpu));
  if (info.capability < kLeastCapability) {
    return absl::FailedPreconditionError(
        fmt::format("GPU {} is {}: the kernels need compute capability {}.{}", options.gpu,
                    info.name, kLeastCapability / 10, kLeastCapability % 10));
  }
  if (!AllowAttention(std::min(info.shared_bytes, AttentionSharedBytes(kMostHeadDim)))) {
    return absl::FailedPreconditionError(fmt::format("GPU {} ({}) refuses the kernels: {}",
                                                     options.gpu, info.name,
                                                     std::string(LaunchError().message())));
  }
  return std::unique_ptr<Ops>(new CudaOps(std::move(info), options));
}

absl::Status CudaOps::CheckLayout(const KvLayout& layout) const {
  if (layout.head_dim <= kMostHeadDim &&
      AttentionSharedBytes(layout.head_dim) <= info_.shared_bytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "heads of {} elements need {} bytes of a GPU block's {}; at most {} can be", layout.head_dim,
      AttentionSharedBytes(layout.head_dim), info_.shared_bytes, kMostHeadDim));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaOps::NewBuffer(int64_t bytes) {
  BATON_RETURN_IF_ERROR(UseDevice(gpu_));
  BATON_ASSIGN_OR_RETURN(void* memory, Allocate(std::max<int64_t>(bytes, 1)));
  return std::make_unique<DeviceBuffer>(memory);
}

void CudaOps::ToDevice(void* to, const void* from, int64_t bytes) {
  Must(UseDevice(gpu_), "choosing it");
  Must(CopyToDevice(to, from, bytes), "a copy to it");
}

void CudaOps::ToHost(std::span<const CopyPiece> pieces) {
  Must(UseDevice(gpu_), "choosing it");
  for (const CopyPiece& piece : pieces) {
    Must(StartCopyToHost(piece.to, piece.from, piece.bytes), "a copy from it");
  }
  Must(Synchronize(), "copies from it");
}

void CudaOps::Copy(float* to, const float* from, int64_t count) {
  Must(UseDevice(gpu_), "choosing it");
  Must(CopyOnDevice(to, from, count * int64_t{sizeof(float)}), "a copy");
}

void* CudaOps::Reserve(Scratch& scratch, int64_t bytes) {
  if (bytes > scratch.bytes) {
    scratch.buffer.reset();  // waits for what uses it
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = NewBuffer(bytes);
    Must(buffer.status(), "reserving scratch memory");
    scratch.buffer = *std::move(buffer);
    scratch.bytes = bytes;
  }
  return scratch.buffer->data();
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::LoadMatrix(const HostMatrix& host) {
  BATON_RETURN_IF_ERROR(UseDevice(gpu_));
  BATON_ASSIGN_OR_RETURN(const PackedWeights packed, PackWeights(host));
  return CudaMatrix::Load(packed);
}

void CudaOps::Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) {
  Must(UseDevice(gpu_), "choosing it");
  void* const sent = Reserve(tokens_, max_rows_ * int64_t{sizeof(TokenId)});
  Must(CopyToDevice(sent, tokens.data(), static_cast<int64_t>(tokens.size_bytes())), "embedding");
  LaunchEmbed(WeightsOf(&table), static_cast<const int32_t*>(sent),
              static_cast<int32_t>(tokens.size()), out, kStream);
  Must(LaunchError(), "embedding");
}

void CudaOps::RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols,
                      float epsilon, float* out) {
  Must(UseDevice(gpu_), "choosing it");
  LaunchRmsNorm(x, weight, rows, cols, epsilon, out, kStream);
  Must(LaunchError(), "a norm");
}

void CudaOps::SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out) {
  Must(UseDevice(gpu_), "choosing it");
  LaunchSwiGlu(gate, up, int64_t{rows} * cols, out, kStream);
  Must(LaunchError(), "SwiGLU");
}

// Leaves the rows in rounded_, with room for whole tiles. What lies beyond the rows is read by the
// kernels, but no result of it stored.
void CudaOps::Round(const float* x, int32_t rows, const Weights& weights) {
  const int64_t room = (int64_t{rows} + kMatMulManyRows - 1) / kMatMulManyRows * kMatMulManyRows;
  void* const to = Reserve(rounded_, room * weights.padded_cols * 2);
  auto* const scales = static_cast<float*>(Reserve(row_scales_, room * int64_t{sizeof(float)}));
  LaunchRound(x, rows, weights.cols, weights.padded_cols, weights.format == WeightFormat::kBF16, to,
              scales, kStream);
}

void CudaOps::MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
                     std::span<float* const> outs, bool add) {
  Must(UseDevice(gpu_), "choosing it");
  enum class Rounded { kNot, kF16, kBF16 } rounded = Rounded::kNot;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weights& w = WeightsOf(weights[i]);
    if (w.format == WeightFormat::kF32) {
      LaunchMatMulF32(w, x, rows, outs[i], add, kStream);
      continue;
    }
    const Rounded needed = w.format == WeightFormat::kBF16 ? Rounded::kBF16 : Rounded::kF16;
    if (rounded != needed) Round(x, rows, w);
    rounded = needed;
    const MatMulPlan plan = PlanMatMul(w.rows, w.padded_cols, rows, info_.multiprocessors);
    float* partials = nullptr;
    if (plan.split) {
      partials = static_cast<float*>(Reserve(sums_, plan.partial_floats * int64_t{sizeof(float)}));
    }
    LaunchMatMul(w, plan, rounded_.buffer->data(),
                 reinterpret_cast<const float*>(row_scales_.buffer->data()), rows, outs[i], add,
                 partials, kStream);
  }
  Must(LaunchError(), "a matrix product");
}

// The ops of all layers of a step bring the same sequences: they are sent once.
void CudaOps::SendTables(std::span<const SequenceRows> sequences, const KvLayout& layout,
                         int32_t group) {
  Must(UseDevice(gpu_), "choosing it");
  BuildStepTables(sequences, layout.block_tokens, group, next_);
  const auto send = [this](Scratch& scratch, const auto& values, const auto& sent) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    const bool same = scratch.buffer != nullptr && SameBytes(values, sent);
    void* const to = Reserve(scratch, bytes);
    if (!same) Must(CopyToDevice(to, values.data(), bytes), "sending a step's sequences");
  };
  send(places_, next_.places, tables_.places);
  send(block_tables_, next_.tables, tables_.tables);
  send(tiles_, next_.tiles, tables_.tiles);
  std::swap(tables_, next_);
}

void CudaOps::RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab,
                             int32_t layer, int32_t heads, std::span<const SequenceRows> sequences,
                             float* q, const float* k, const float* v) {
  SendTables(sequences, layout, heads / layout.kv_heads);
  RopeArguments a;
  a.cache = CacheOf(layout, layer);
  a.interleaved = rope.pairs == RopePairs::kInterleaved;
  a.rotary_dim = rope.rotary_dim;
  a.cosine = rope.cosine.data();
  a.sine = rope.sine.data();
  a.places = reinterpret_cast<const RowPlace*>(places_.buffer->data());
  a.tables = reinterpret_cast<const int32_t*>(block_tables_.buffer->data());
  a.rows = static_cast<int32_t>(tables_.places.size());
  a.heads = heads;
  a.q = q;
  a.k = k;
  a.v = v;
  a.slab = reinterpret_cast<char*>(slab);
  LaunchRopeAndStoreKv(a, kStream);
  Must(LaunchError(), "storing keys and values");
}

void CudaOps::Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                        int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                        float* out) {
  SendTables(sequences, layout, shape.heads / layout.kv_heads);
  AttentionArguments a;
  a.cache = CacheOf(layout, layer);
  a.tiles = reinterpret_cast<const QueryTile*>(tiles_.buffer->data());
  a.tile_count = static_cast<int32_t>(tables_.tiles.size());
  a.places = reinterpret_cast<const RowPlace*>(places_.buffer->data());
  a.tables = reinterpret_cast<const int32_t*>(block_tables_.buffer->data());
  a.rows = static_cast<int32_t>(tables_.places.size());
  a.heads = shape.heads;
  a.scale = shape.scale;
  a.segments = (tables_.longest + kSegmentTokens - 1) / kSegmentTokens;
  a.q = q;
  a.out = out;
  a.slab = reinterpret_cast<const char*>(slab);
  // Segments in blocks of their own where there are few tiles, as in decode.
  const int64_t bytes =
      int64_t{sizeof(float)} * AttentionPartialFloats(a.rows, a.heads, a.segments, layout.head_dim);
  const int64_t blocks = int64_t{a.tile_count} * layout.kv_heads;
  if (a.segments > 1 && a.segments <= 65'535 && bytes <= kMostSoftmaxBytes &&
      blocks < 2 * info_.multiprocessors) {
    a.partials = static_cast<float*>(Reserve(softmaxes_, bytes));
  }
  LaunchAttention(a, kStream);
  Must(LaunchError(), "attention");
}

}  // namespace cuda

absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(const CudaOptions& options) {
  return cuda::CudaOps::Create(options);
}

}  // namespace baton::kernels
