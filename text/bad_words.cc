#include "text/bad_words.h"

#include <algorithm>
#include <utility>

namespace baton::text {

std::vector<std::vector<TokenId>> BadWordTokens(const Tokenizer& tokenizer,
                                                std::span<const std::string> words) {
  std::vector<std::vector<TokenId>> all;
  for (const std::string& word : words) {
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    std::vector<TokenId> alone = tokenizer.Encode(bare, SpecialTokens::kPlainText);
    std::vector<TokenId> behind_space = tokenizer.Encode(" " + bare, SpecialTokens::kPlainText);
    if (alone != behind_space && !behind_space.empty()) all.push_back(std::move(behind_space));
    if (!alone.empty()) all.push_back(std::move(alone));
  }
  return all;
}

}  // namespace baton::text
