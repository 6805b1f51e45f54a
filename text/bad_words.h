#pragma once

// Words that an answer must not have, as the tokens that would say them.

#include <span>
#include <string>
#include <vector>

#include "common/ids.h"
#include "text/tokenizer.h"

namespace baton::text {

// Of each word the tokens at the beginning of a text and, where they are others, behind a space: as
// vLLM's bad_words. A model that puts a word together from other tokens than the tokenizer would is
// not kept from it.
std::vector<std::vector<TokenId>> BadWordTokens(const Tokenizer& tokenizer,
                                                std::span<const std::string> words);

}  // namespace baton::text
