#pragma once

// The demo model's tokenizer, for tests that need real tokens.

#include <memory>
#include <string_view>
#include <vector>

#include "common/status_macros.h"
#include "model_file/gguf.h"
#include "text/tokenizer.h"

namespace baton::router {

inline constexpr const char* kDemoModel = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

inline const text::Tokenizer& DemoTokenizer() {
  static const text::Tokenizer* const tokenizer = [] {
    auto file = GgufFile::Open(kDemoModel);
    BATON_CHECK(file.ok(), file.status().ToString());
    static const std::shared_ptr<const GgufFile> keep = *std::move(file);
    auto made = text::Tokenizer::Create(*keep);
    BATON_CHECK(made.ok(), made.status().ToString());
    return made->release();
  }();
  return *tokenizer;
}

inline std::vector<TokenId> DemoTokens(std::string_view text) {
  return DemoTokenizer().Encode(text, text::SpecialTokens::kPlainText);
}

}  // namespace baton::router
