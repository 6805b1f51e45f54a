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

// Element j is the low nibble of byte j, element j + 16 the high one; `zero` is subtracted.
void SetNibbles(QuantBlock& out, const uint8_t* nibbles, int zero) {
  for (int j = 0; j < 16; ++j) {
    out.quants[j] = static_cast<int8_t>((nibbles[j] & 15) - zero);
    out.quants[j + 16] = static_cast<int8_t>((nibbles[j] >> 4) - zero);
  }
}

// Bit i of `fifth_bits` is the fifth bit of element i.
void AddFifthBits(QuantBlock& out, uint32_t fifth_bits) {
  for (int i = 0; i < 32; ++i) {
    const auto fifth_bit = static_cast<int8_t>((fifth_bits >> i & 1) << 4);
    out.quants[i] = static_cast<int8_t>(out.quants[i] + fifth_bit);
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
  SetNibbles(out, block + 2, 8);
}

// {half d, m; u8 q[16]}
void UnpackQ4_1(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block), Load<uint16_t>(block + 2));
  SetNibbles(out, block + 4, 0);
}

// {half d; u32 fifth_bits; u8 q[16]}
void UnpackQ5_0(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block));
  SetNibbles(out, block + 6, 16);
  AddFifthBits(out, Load<uint32_t>(block + 2));
}

// {half d, m; u32 fifth_bits; u8 q[16]}
void UnpackQ5_1(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 32, Load<uint16_t>(block), Load<uint16_t>(block + 2));
  SetNibbles(out, block + 8, 0);
  AddFifthBits(out, Load<uint32_t>(block + 4));
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
void SetKNibbles(QuantBlock& out, const uint8_t* nibbles) {
  for (int pair = 0; pair < 4; ++pair) {
    for (int j = 0; j < 32; ++j) {
      out.quants[64 * pair + j] = static_cast<int8_t>(nibbles[32 * pair + j] & 15);
      out.quants[64 * pair + 32 + j] = static_cast<int8_t>(nibbles[32 * pair + j] >> 4);
    }
  }
}

// {header; u8 q[128]}
void UnpackQ4_K(const uint8_t* block, QuantBlock& out) {
  SetKHeader(block, out);
  SetKNibbles(out, block + 16);
}

// {header; u8 fifth_bits[32]; u8 q[128]}: bit g of fifth_bits[j] belongs to element j of group g.
void UnpackQ5_K(const uint8_t* block, QuantBlock& out) {
  SetKHeader(block, out);
  SetKNibbles(out, block + 48);
  for (int g = 0; g < 8; ++g) {
    for (int j = 0; j < 32; ++j) {
      const auto fifth_bit = static_cast<int8_t>((block[16 + j] >> g & 1) << 4);
      out.quants[32 * g + j] = static_cast<int8_t>(out.quants[32 * g + j] | fifth_bit);
    }
  }
}

// {u8 low[128]; u8 high[64]; i8 scales[16]; half d}: groups of 16. Each half of 128 elements is
// four runs of 32: run r takes nibble r / 2 of low[32 * (r % 2) + j] and bits 2r, 2r + 1 of
// high[j].
void UnpackQ6_K(const uint8_t* block, QuantBlock& out) {
  SetHeader(out, 256, Load<uint16_t>(block + 208));
  out.group = 16;
  std::memcpy(out.scales, block + 192, 16);
  for (int half = 0; half < 2; ++half) {
    for (int run = 0; run < 4; ++run) {
      const uint8_t* low = block + 64 * half + 32 * (run % 2);
      const uint8_t* high = block + 128 + 32 * half;
      const int low_shift = run / 2 * 4;
      int8_t* quants = out.quants + 128 * half + 32 * run;
      for (int j = 0; j < 32; ++j) {
        const int quant = (low[j] >> low_shift & 15) | (high[j] >> (2 * run) & 3) << 4;
        quants[j] = static_cast<int8_t>(quant - 32);
      }
    }
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
