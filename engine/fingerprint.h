#pragma once

#include <string>

#include "model_file/gguf.h"

namespace baton::engine {

// SHA-256 in hex over the file's size, its directory (metadata and tensor list), and the first,
// middle and last 4 KiB of every tensor. Two trainings of one model differ in every tensor, so this
// tells them apart without reading gigabytes.
std::string Fingerprint(const GgufFile& file);

}  // namespace baton::engine
