#include "kernels/dequantize.h"

#include <bit>
#include <cstring>

#include "common/status_macros.h"
#include "kernels/half.h"

namespace baton::kernels {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF data is used as it lies");

template <typename T>
T Load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void SetHeader(QuantBlock& out, int32_t elements, uint16_t d) {
  out.elements = elements;
  out.group = 0;
  out.has_min = false;
  out.d = d;
  out.m = 0;
}

void SetHeader(QuantBlock& out, int32_t elements, uint16_t d, uint16_t m) {
  SetHeader(out, elements, d);
  out.has_min = true;
  out.m = m;
}

// Element j is the low nibble of byte j, element j + 16 the high one; bit i of `fifth_bits` is the
// fifth bit of element i; `zero` is subtracted.
void SetNibbles(QuantBlock& out, const uint8_t* nibbles, uint32_t fifth_bits, int zero) {
  for (int j = 0; j < 16; ++j) {
    const int low = (nibbles[j] & 15) | static_cast<int>((fifth_bits >> j) & 1) << 4;
    const int high = (nibbles[j] >> 4) | static_cast<int>((fifth_bits >> (j + 16)) & 1) << 4;
    out.quants[j] = static_cast<int8_t>(low - zero);
    out.quants[j + 16] = static_cast<int8_t>(high - zero);
  }
}

// {half d; i8 q[32]}
void UnpackQ8_0(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block));
  std::memcpy(out.quants, block + 2, 32);
}

// {half d; u8 q[16]}
void UnpackQ4_0(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block));
  SetNibbles(out, block + 2, 0, 8);
}

// {half d, m; u8 q[16]}
void UnpackQ4_1(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block), Load<uint16_t>(block + 2));
  SetNibbles(out, block + 4, 0, 0);
}

// {half d; u32 fifth_bits; u8 q[16]}
void UnpackQ5_0(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block));
  SetNibbles(out, block + 6, Load<uint32_t>(block + 2), 16);
}

// {half d, m; u32 fifth_bits; u8 q[16]}
void UnpackQ5_1(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block), Load<uint16_t>(block + 2));
  SetNibbles(out, block + 8, Load<uint32_t>(block + 4), 0);
}

// The header of Q4_K and Q5_K, {half d, dmin; u8 packed[12]}: 8 groups of 32 elements with a scale
// and a minimum of 6 bits each.
void SetKHeader(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 256, Load<uint16_t>(block), Load<uint16_t>(block + 2));
  out.group = 32;
  const uint8_t* packed = block + 4;
  for (int g = 0; g < 4; ++g) {
    out.scales[g] = static_cast<int8_t>(packed[g] & 63);
    out.mins[g] = static_cast<int8_t>(packed[g + 4] & 63);
    out.scales[g + 4] = static_cast<int8_t>((packed[g + 8] & 15) | (packed[g] >> 6) << 4);
    out.mins[g + 4] = static_cast<int8_t>((packed[g + 8] >> 4) | (packed[g + 4] >> 6) << 4);
  }
}

// Nibbles of Q4_K and Q5_K: groups 2i and 2i + 1 are the low and high ones of bytes 32i .. 32i
// + 31.
int KNibble(const uint8_t* nibbles, int group, int j) {
  const uint8_t byte = nibbles[group / 2 * 32 + j];
  return group % 2 == 0 ? byte & 15 : byte >> 4;
}

// {header; u8 q[128]}
void UnpackQ4_K(const uint8_t* block, QuantBlock& out) {
  SetKHeader(block, out);
  for (int i = 0; i < 256; ++i) {
    out.quants[i] = static_cast<int8_t>(KNibble(block + 16, i / 32, i % 32));
  }
}

// {header; u8 fifth_bits[32]; u8 q[128]}: bit g of fifth_bits[j] belongs to element j of group g.
void UnpackQ5_K(const uint8_t* block, QuantBlock& out) {
  SetKHeader(block, out);
  for (int i = 0; i < 256; ++i) {
    const int fifth_bit = (block[16 + i % 32] >> (i / 32)) & 1;
    out.quants[i] = static_cast<int8_t>(KNibble(block + 48, i / 32, i % 32) | fifth_bit << 4);
  }
}

// {u8 low[128]; u8 high[64]; i8 scales[16]; half d}: groups of 16. Each half of 128 elements is
// four runs of 32: run r takes nibble r / 2 of low[32 * (r % 2) + j] and bits 2r, 2r + 1 of
// high[j].
void UnpackQ6_K(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 256, Load<uint16_t>(block + 208));
  out.group = 16;
  std::memcpy(out.scales, block + 192, 16);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int run = i % 128 / 32;
    const int j = i % 32;
    const uint8_t low_byte = block[64 * half + 32 * (run % 2) + j];
    const int low = run < 2 ? low_byte & 15 : low_byte >> 4;
    const int high = (block[128 + 32 * half + j] >> (2 * run)) & 3;
    out.quants[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void DequantizeBlock(const QuantBlock& block, float* out) {
  const float d = HalfToFloat(block.d);
  const float m = HalfToFloat(block.m);
  for (int32_t i = 0; i < block.elements; ++i) {
    float scale = d;
    float offset = m;
    if (block.group != 0) {
      scale = d * static_cast<float>(block.scales[i / block.group]);
      if (block.has_min) offset = -(m * static_cast<float>(block.mins[i / block.group]));
    }
    const float product = scale * static_cast<float>(block.quants[i]);
    out[i] = block.has_min ? product + offset : product;
  }
}

}  // namespace

bool IsBlockFormat(DType dtype) { return Traits(dtype).block_elements > 1; }

void UnpackBlock(DType dtype, const std::byte* block, QuantBlock& out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(block);
  switch (dtype) {
    case DType::kQ8_0:
      return UnpackQ8_0(bytes, out);
    case DType::kQ4_0:
      return UnpackQ4_0(bytes, out);
    case DType::kQ4_1:
      return UnpackQ4_1(bytes, out);
    case DType::kQ5_0:
      return UnpackQ5_0(bytes, out);
    case DType::kQ5_1:
      return UnpackQ5_1(bytes, out);
    case DType::kQ4_K:
      return UnpackQ4_K(bytes, out);
    case DType::kQ5_K:
      return UnpackQ5_K(bytes, out);
    case DType::kQ6_K:
      return UnpackQ6_K(bytes, out);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  BATON_CHECK(false, "UnpackBlock is for block formats");
}

void Dequantize(DType dtype, std::span<const std::byte> data, std::span<float> out) {
  const DTypeTraits& traits = Traits(dtype);
  const auto elements = static_cast<int64_t>(out.size());
  BATON_CHECK(elements % traits.block_elements == 0, "whole blocks only");
  BATON_CHECK(static_cast<int64_t>(data.size()) >= DTypeBytes(dtype, elements),
              "data holds all elements");
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  if (dtype == DType::kF32) {
    std::memcpy(out.data(), bytes, out.size_bytes());
  } else if (dtype == DType::kF16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = HalfToFloat(Load<uint16_t>(bytes + 2 * i));
  } else if (dtype == DType::kBF16) {
    for (int64_t i = 0; i < elements; ++i) out[i] = BFloat16ToFloat(Load<uint16_t>(bytes + 2 * i));
  } else {
    QuantBlock block;
    const std::byte* from = data.data();
    for (int64_t i = 0; i < elements; i += traits.block_elements, from += traits.block_bytes) {
      UnpackBlock(dtype, from, block);
      DequantizeBlock(block, &out[i]);
    }
  }
}

}  // namespace baton::kernels
