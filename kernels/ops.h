#pragma once

// The seam between the model and a device: every op of a transformer's forward pass.
//
// The backends, reference/ (plain, obviously right), cpu/ (fast) and cuda/ (NVIDIA GPUs), implement
// the same contract:
//
// - Batch invariance. A row of any output depends only on its own inputs: not on how many rows are
//   computed together, nor on the number of threads, nor on block_tokens. The same row gives the
//   same bits in a chunk of 256 and in a decode step of 1.
// - Attention accumulates over tiles of tokens at fixed absolute positions (on the CPU 0..63,
//   64..127, ...), in order, and over segments of 256 positions, which are merged in order:
//   chunking, block size and threads do not change a bit.
// - Activations are float, row-major, contiguous. Token rows of one step are "rows".
// - Memory that an op does not say it reads may hold anything, NaN included: unused cache slots,
//   unused block-table entries, tails.
//
// Preconditions are the caller's: shapes were checked when the model was loaded. One Ops belongs to
// one device thread; it owns its thread pool and scratch memory, sized at creation for
// `max_rows`, and its ops allocate nothing after the first call of each shape.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "common/ids.h"
#include "kernels/kv_layout.h"

namespace baton::kernels {

// A weight matrix as it lies in the model file: `rows` output features of `cols` inputs each.
struct HostMatrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of the dtype's block
  std::span<const std::byte> data;
};

// A weight matrix in the device's own layout. Belongs to the Ops that made it, which keeps its
// memory to its own end.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual int64_t bytes() const = 0;  // resident bytes
};

// Memory of the device, zeroed at first. Belongs to the Ops that made it.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() = 0;
  float* floats() { return reinterpret_cast<float*>(data()); }
};

// Bytes to be copied between the device and the host.
struct CopyPiece {
  void* to;
  const void* from;
  int64_t bytes;
};

// The rows of a step that belong to one sequence: consecutive tokens of it.
struct SequenceRows {
  std::span<const int32_t> block_table;  // slab block of each block_tokens positions, from 0
  int32_t first_position = 0;            // position in the sequence of its first row
  int32_t first_row = 0;
  int32_t row_count = 0;
};

// How query and key vectors are rotated (RoFormer, arXiv 2104.09864). Pairs are (2i, 2i+1) for
// kInterleaved (llama GGUF) and (i, i + rotary_dim/2) for kHalves (NeoX, Qwen).
enum class RopePairs { kInterleaved, kHalves };
struct Rope {
  RopePairs pairs = RopePairs::kInterleaved;
  int32_t rotary_dim = 0;         // even, at most head_dim; the rest is copied
  std::span<const float> cosine;  // [context][rotary_dim / 2]
  std::span<const float> sine;
};

struct AttentionShape {
  int32_t heads =
      0;  // a multiple of the layout's kv_heads: head h reads kv head h / (heads / kv_heads)
  float scale = 0;  // usually 1 / sqrt(head_dim)
};

// How the next token of a row of logits is drawn, as engine/sampler.h says.
struct LogitEdit {
  TokenId token = 0;
  float bias = 0;
  int32_t count = -1;  // of the token in the output, for penalties; -1: it has none
  bool masked = false;
};
struct Draw {
  bool by_host = false;  // the device need not try
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  double uniform = 0;
  int32_t first_edit = 0;  // in the edits of the step; each of another token
  int32_t edit_count = 0;
};
inline constexpr TokenId kDrawnByHost = -1;

class Ops {
 public:
  virtual ~Ops() = default;

  // "cpu avx512-vnni-bf16, 2 threads", for logs and benchmarks.
  virtual std::string Describe() const = 0;

  // The device's memory. Pointers that the ops take are of it, but for spans; where it is the
  // host's, these are plain memory and copies.
  virtual bool host_memory() const { return true; }
  // ResourceExhausted with what is free.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> NewBuffer(int64_t bytes);
  virtual void ToDevice(void* to, const void* from, int64_t bytes);
  // After what the ops before it write; done when it returns.
  virtual void ToHost(std::span<const CopyPiece> pieces);
  virtual void Copy(float* to, const float* from, int64_t count);  // apart, on the device
  // Makes copies to and from this memory of the host fast, where the system lets it; true where it
  // did, for UnpinHost to end it.
  virtual bool PinHost(std::span<std::byte>) { return false; }
  virtual void UnpinHost(std::span<std::byte>) {}

  // InvalidArgument for a KV layout that the backend's kernels do not know.
  virtual absl::Status CheckLayout(const KvLayout&) const { return absl::OkStatus(); }

  // Copies and repacks; `host` may go away afterwards. InvalidArgument for shapes that the backend
  // cannot hold.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(const HostMatrix& host) = 0;

  // out[r] = row tokens[r] of `table` as float. out: [tokens.size()][table.cols()]
  virtual void Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) = 0;

  // out[r][c] = x[r][c] / sqrt(mean_c(x[r]^2) + epsilon) * weight[c]. out may be x.
  virtual void RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols,
                       float epsilon, float* out) = 0;

  // outs[i][r][n] (+)= sum_k x[r][k] * weights[i][n][k], several weights of equal cols over one
  // x: [rows][cols]; outs[i]: [rows][weights[i]->rows()]. `add` accumulates into what outs hold
  // (the residual stream). Block-format weights may use activations rounded to 8 bits per 32
  // inputs, BF16 weights activations rounded to BF16 (the cpu backend's AVX-512 and AMX do).
  virtual void MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
                      std::span<float* const> outs, bool add) = 0;

  // Rotates q and k of each row by its position, and stores k and v into the slab blocks of their
  // positions. q: [rows][heads * head_dim], in place. k, v: [rows][kv_heads * head_dim].
  virtual void RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab,
                              int32_t layer, int32_t heads, std::span<const SequenceRows> sequences,
                              float* q, const float* k, const float* v) = 0;

  // Causal attention of each row over positions [0, its own]. q and out: [rows][heads * head_dim].
  virtual void Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                         int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                         float* out) = 0;

  // out[r][c] = silu(gate[r][c]) * up[r][c]. out may be gate.
  virtual void SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols,
                      float* out) = 0;

  // tokens[r], on the host, = the token that is drawn from logits[r] [vocab], which stay as they
  // are: the one that the host would draw. kDrawnByHost where a row says so or the device cannot.
  virtual void DrawTokens(const float* logits, int32_t vocab, std::span<const Draw> draws,
                          std::span<const LogitEdit> edits, std::span<TokenId> tokens);

  // For benchmarks: 1e9 operations a second of the device's matrix units, by the instructions that
  // its kernels use, over so many rounds; 0 where that is not known.
  virtual double MeasureTensorGopS(int32_t) { return 0; }
};

// Plain loops in one thread, weights kept as float (block formats decoded exactly). Slow; the
// judge.
std::unique_ptr<Ops> CreateReferenceOps();

// Instruction sets of the cpu backend, best last. kAuto takes the best that the machine has.
enum class CpuIsa { kAuto, kPortable, kAvx2, kAvx512, kAmx };
struct CpuOptions {
  int32_t threads = 0;  // 0: the CPUs that affinity mask and cgroup quota allow
  CpuIsa isa = CpuIsa::kAuto;
  int32_t max_rows = 512;  // the most rows of any call
  // Keeps each compute thread, the device thread among them from its first step on, on a CPU of its
  // own: the first of the affinity mask. For processes that share no CPU with others.
  bool pin_threads = false;
};
// FailedPrecondition when the machine lacks the instruction set asked for, or the system does not
// let the process use the tile registers of AMX.
absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(const CpuOptions& options);

struct CudaOptions {
  int32_t gpu = 0;
  int32_t max_rows = 512;  // the most rows of any call
};
// FailedPrecondition where the build has no CUDA, or the machine no driver, no such GPU, or one of
// compute capability below 8.0.
absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(const CudaOptions& options);

// "auto", "portable", "avx2", "avx512", "amx"; InvalidArgument lists them.
absl::StatusOr<CpuIsa> CpuIsaFromName(std::string_view name);

// The CPUs of the calling thread's affinity mask, ascending; none where it cannot be read.
std::vector<int32_t> AllowedCpus();

// CPUs that this process may use: affinity mask, and cgroup v1/v2 CPU quota rounded up.
int32_t UsableCpus();

}  // namespace baton::kernels
