#pragma once

// Tile registers of Intel AMX, for the sources amx_*.cc. All of them use the eight registers alike:
//   0..3  sums, of 16 columns: 0 and 1 of the first rows, 2 and 3 of the second
//   4, 5  activations of the first and of the second rows
//   6, 7  weights of the first and of the second 16 columns
// A tile holds up to 16 rows of 64 bytes. Tile state is a thread's own; while it is in use, a
// context switch saves 8 KiB.

#include <immintrin.h>

#include <cstdint>

namespace baton::kernels::amx {

inline constexpr int kTileRows = 16;
inline constexpr int kTileColumns = 16;  // of 32 bits
inline constexpr int kTileRowBytes = 64;
inline constexpr int kMaxTileRows = 2 * kTileRows;  // the first and the second
inline constexpr int kBf16TileInputs = kTileRowBytes / 2;

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// For products of first_rows + second_rows (each up to kTileRows) rows of input_bytes (up to
// kTileRowBytes).
static constexpr TileConfig MakeTileConfig(int first_rows, int second_rows, int input_bytes) {
  TileConfig config{};
  config.palette = 1;
  const int rows[8] = {first_rows, first_rows,  second_rows,     second_rows,
                       first_rows, second_rows, input_bytes / 4, input_bytes / 4};
  for (int tile = 0; tile < 8; ++tile) {
    const bool activations = tile == 4 || tile == 5;
    if (rows[tile] == 0) continue;  // both must be 0 where a tile is not used
    config.rows[tile] = static_cast<uint8_t>(rows[tile]);
    config.row_bytes[tile] = static_cast<uint16_t>(activations ? input_bytes : kTileRowBytes);
  }
  return config;
}

// By the number of rows, for BF16.
struct Bf16Configs {
  TileConfig of_rows[kMaxTileRows + 1];
};
static constexpr Bf16Configs kBf16Configs = [] {
  Bf16Configs configs{};
  for (int rows = 1; rows <= kMaxTileRows; ++rows) {
    const int first = rows < kTileRows ? rows : kTileRows;
    configs.of_rows[rows] = MakeTileConfig(first, rows - first, kTileRowBytes);
  }
  return configs;
}();

// Configures this thread's tiles for as long as it lives.
class TileScope {
 public:
  explicit TileScope(const TileConfig& config) { Configure(config); }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

  // Again; the tiles become zero.
  void Configure(const TileConfig& config) { _tile_loadconfig(&config); }
};

// The intrinsics do not tell the compiler what memory they read: to be called after what they read
// was written.
static inline __attribute__((always_inline)) void PublishToTiles() {
  __asm__ volatile("" ::: "memory");
}

}  // namespace baton::kernels::amx
