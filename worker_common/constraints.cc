#include "worker_common/constraints.h"

#include <fmt/format.h>

#include <memory>
#include <string_view>
#include <vector>

#include "common/logging.h"
#include "grammar/background_constrainer.h"
#include "grammar/token_constrainer.h"

namespace baton::worker_common {
namespace {

std::vector<std::string_view> TextsOf(const text::Tokenizer& tokenizer) {
  std::vector<std::string_view> texts;
  for (TokenId token = 0; token < tokenizer.vocab_size(); ++token) {
    texts.push_back(tokenizer.TokenBytes(token));
  }
  for (const TokenId token : tokenizer.end_tokens()) texts[static_cast<size_t>(token)] = {};
  return texts;
}

}  // namespace

engine::ConstraintMaker ConstraintMakerFor(const text::Tokenizer& tokenizer) {
  auto constrainer = std::make_shared<grammar::TokenConstrainer>(TextsOf(tokenizer),
                                                                 tokenizer.strips_leading_space());
  return [constrainer](const std::string& constraint) { return constrainer->Create(constraint); };
}

engine::ConstraintMaker BackgroundConstraintMakerFor(const GgufFile& file) {
  const auto tokenizer = text::Tokenizer::Create(file);
  if (!tokenizer.ok()) {
    LogWarning(fmt::format("constrained output is not possible: {}",
                           std::string(tokenizer.status().message())));
    return nullptr;
  }
  auto constrainer = std::make_shared<grammar::BackgroundConstrainer>(
      TextsOf(**tokenizer), (*tokenizer)->strips_leading_space());
  return [constrainer](const std::string& constraint) { return constrainer->Create(constraint); };
}

}  // namespace baton::worker_common
