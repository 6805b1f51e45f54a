#include "planner/hardware_facts.h"

#include <fmt/format.h>

#include <cmath>

#include "planner/name_lookup.h"

namespace baton::planner {
namespace {

// FLOP/s are dense. GB and TB are 1e9 and 1e12 bytes, as the makers count memory here.
const std::vector<HardwareFacts>& KnownHardware() {
  static const std::vector<HardwareFacts> hardware = {
      // NVIDIA V100 data sheet (SXM2): 125 TFLOPS tensor fp16, 900 GB/s, NVLink 300 GB/s both ways.
      // Network: DGX-1 user guide, 4 x 100 Gbit/s for 8 GPUs.
      {"v100-16gb", 125e12, 0, 16e9, 900e9, 150e9, 1, 8, 6.25e9},
      {"v100-32gb", 125e12, 0, 32e9, 900e9, 150e9, 1, 8, 6.25e9},
      // NVIDIA A100 data sheet (SXM4): 312 TFLOPS bf16, 624 TOPS int8; 40 GB at 1555 GB/s, 80 GB at
      // 2039 GB/s; NVLink 600 GB/s both ways. Network: DGX A100, a 200 Gbit/s port a GPU.
      {"a100-40gb", 312e12, 624e12, 40e9, 1555e9, 300e9, 1, 8, 25e9},
      {"a100-80gb", 312e12, 624e12, 80e9, 2039e9, 300e9, 1, 8, 25e9},
      // NVIDIA H100 data sheet (SXM5; halved where it counts sparsity): 989 TFLOPS bf16, 1979 fp8,
      // 80 GB at 3.35 TB/s, NVLink 900 GB/s both ways. Network: DGX H100, 400 Gbit/s a GPU.
      {"h100", 989e12, 1979e12, 80e9, 3.35e12, 450e9, 1, 8, 50e9},
      // NVIDIA H200 data sheet: H100's compute, 141 GB at 4.8 TB/s. Network: DGX H200.
      {"h200", 989e12, 1979e12, 141e9, 4.8e12, 450e9, 1, 8, 50e9},
      // NVIDIA DGX B200 data sheet, an eighth of it: 72 PFLOPS fp8 with sparsity (dense 4.5 a GPU;
      // bf16 half of that), 1440 GB, 64 TB/s, NVLink 14.4 TB/s both ways, 400 Gbit/s a GPU.
      {"b200", 2250e12, 4500e12, 180e9, 8e12, 900e9, 1, 8, 50e9},
      // NVIDIA L4 data sheet (halved where it counts sparsity): 121 TFLOPS bf16, 242 fp8, 24 GB at
      // 300 GB/s, PCIe 4.0 x16 at 64 GB/s both ways. Network: 100 Gbit/s for 8, as cloud machines
      // with L4s have.
      {"l4", 121e12, 242e12, 24e9, 300e9, 32e9, 1, 8, 1.5625e9},
      // AMD Instinct MI300X data sheet: 1307.4 TFLOPS bf16, 2614.9 fp8, 192 GB at 5.3 TB/s, 7
      // Infinity Fabric links of 128 GB/s both ways. Network: 400 Gbit/s a GPU (MI300X platform).
      {"mi300x", 1307.4e12, 2614.9e12, 192e9, 5.3e12, 448e9, 1, 8, 50e9},
      // Intel Gaudi 2 white paper: 432 TFLOPS bf16, 865 fp8, 96 GB at 2.45 TB/s, 24 x 100 Gbit/s,
      // of
      // which 21 join the 8 of a machine and 3 leave it.
      {"gaudi-2", 432e12, 865e12, 96e9, 2.45e12, 262.5e9, 1, 8, 37.5e9},
      // Intel Gaudi 3 white paper: 1835 TFLOPS bf16 and fp8, 128 GB at 3.7 TB/s, 24 x 200 Gbit/s,
      // 21 and 3 as above.
      {"gaudi-3", 1835e12, 1835e12, 128e9, 3.7e12, 525e9, 1, 8, 75e9},
      // TPUs: "How to Scale Your Model", chapter on TPUs, tables of chips and interconnect (bytes
      // along an axis are both ways of its ring) and of data centre network; largest slices as
      // there.
      {"tpu-v4", 2.75e14, 2.75e14, 32e9, 1.2e12, 9e10, 3, 4096, 6.25e9},
      // The book prints both 8.1e11 and 8.2e11 for v5e; Google's product page 819 GB/s.
      {"tpu-v5e", 1.97e14, 3.94e14, 16e9, 8.2e11, 9e10, 2, 256, 3.125e9},
      {"tpu-v5p", 4.59e14, 9.18e14, 96e9, 2.8e12, 1.8e11, 3, 8960, 6.25e9},
      {"tpu-v6e", 9.2e14, 1.84e15, 32e9, 1.6e12, 1.8e11, 2, 256, 12.5e9},
  };
  return hardware;
}

// What people leave out of a name.
std::string_view FullName(std::string_view plain) {
  if (plain == "v100") return "v100-32gb";
  if (plain == "a100") return "a100-80gb";
  if (plain == "gaudi2") return "gaudi-2";
  if (plain == "gaudi3") return "gaudi-3";
  return plain;
}

}  // namespace

absl::Status CheckHardwareFacts(const HardwareFacts& hardware) {
  const struct {
    const char* name;
    double value;
    bool may_be_zero;
  } numbers[] = {{"flops_16bit_per_s", hardware.flops_16bit_per_s, false},
                 {"flops_8bit_per_s", hardware.flops_8bit_per_s, true},
                 {"hbm_bytes", hardware.hbm_bytes, false},
                 {"hbm_bytes_per_s", hardware.hbm_bytes_per_s, false},
                 {"link_bytes_per_s", hardware.link_bytes_per_s, hardware.domain_chips == 1},
                 {"link_axes", static_cast<double>(hardware.link_axes), false},
                 {"domain_chips", static_cast<double>(hardware.domain_chips), false},
                 {"network_bytes_per_s", hardware.network_bytes_per_s, false}};
  for (const auto& number : numbers) {
    if (!std::isfinite(number.value) || number.value < 0 ||
        (number.value == 0 && !number.may_be_zero)) {
      return absl::InvalidArgumentError(fmt::format("hardware '{}': {} is {}, but must be positive",
                                                    hardware.name, number.name, number.value));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> KnownHardwareNames() {
  std::vector<std::string> names;
  for (const HardwareFacts& hardware : KnownHardware()) names.push_back(hardware.name);
  return names;
}

absl::StatusOr<HardwareFacts> KnownHardwareFacts(std::string_view name) {
  const std::vector<std::string> names = KnownHardwareNames();
  const int found = FindName(FullName(PlainName(name)), names);
  if (found < 0) return absl::NotFoundError(UnknownName("hardware", name, names));
  return KnownHardware()[static_cast<size_t>(found)];
}

}  // namespace baton::planner
