#include <cstring>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/isa_probes.h"

namespace baton::kernels::amx {
namespace {

constexpr int kSums = 4;
constexpr int64_t kTileOps = 2 * int64_t{kTileRows} * kTileColumns;  // for each input

struct alignas(64) Tile {
  int32_t lanes[kTileRows * kTileColumns];
};

// Sets the tiles up, all lanes of the factors being `left` and `right`, and returns a lane of the
// sum after `run`.
template <typename Run>
int32_t WithTiles(int32_t left, int32_t right, const Run& run) {
  static constexpr TileConfig kConfig = MakeTileConfig(kTileRows, kTileRows, kTileRowBytes);
  Tile factors[2];
  for (int32_t& lane : factors[0].lanes) lane = left;
  for (int32_t& lane : factors[1].lanes) lane = right;
  const TileScope tiles(kConfig);
  PublishToTiles();
  _tile_loadd(4, &factors[0], kTileRowBytes);
  _tile_loadd(5, &factors[0], kTileRowBytes);
  _tile_loadd(6, &factors[1], kTileRowBytes);
  _tile_loadd(7, &factors[1], kTileRowBytes);
  run();
  Tile sum;
  _tile_stored(0, &sum, kTileRowBytes);
  return sum.lanes[0];
}

float DotBf16(int64_t rounds) {
  constexpr int32_t kOnes = 0x3f803f80;
  constexpr int32_t kSmall = 0x3c003c00;
  const int32_t bits = WithTiles(kOnes, kSmall, [rounds] {
    for (int64_t round = 0; round < rounds; ++round) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  });
  float sum;
  std::memcpy(&sum, &bits, sizeof sum);
  return sum;
}

float DotInt8(int64_t rounds) {
  const int32_t sum = WithTiles(0x01010101, 0x01020304, [rounds] {
    for (int64_t round = 0; round < rounds; ++round) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  });
  return static_cast<float>(sum);
}

}  // namespace

const IsaProbes& GetIsaProbes() {
  static const IsaProbes probes = [] {
    IsaProbes all = avx512::GetIsaProbes();
    all.name = "amx";
    all.bf16 = {DotBf16, kSums * kTileOps * (kTileRowBytes / 2)};
    all.int8 = {DotInt8, kSums * kTileOps * kTileRowBytes};
    return all;
  }();
  return probes;
}

}  // namespace baton::kernels::amx
