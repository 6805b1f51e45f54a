#pragma once

// Constraints over a vocabulary: descriptions (constraint.h) to sets of allowed tokens.

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/token_constraint.h"
#include "grammar/token_trie.h"

namespace baton::grammar {

// One per device thread; not thread-safe. Keeps what it has found out for the constraints that were
// used last, and no more than kMaxKeptBytes for each; a constraint's answers never depend on it.
class TokenConstrainer {
 public:
  static constexpr size_t kMaxKept = 32;
  static constexpr size_t kMaxKeptBytes = size_t{8} << 20;

  // One text a token; "" for tokens that stand for nothing: they are never allowed. Where the
  // tokenizer drops a space at the beginning of a text, the constraint is on what is left.
  TokenConstrainer(const std::vector<std::string_view>& token_texts, bool drops_first_space);
  ~TokenConstrainer();
  TokenConstrainer(const TokenConstrainer&) = delete;
  TokenConstrainer& operator=(const TokenConstrainer&) = delete;

  // InvalidArgument as CompileConstraint. The result may outlive the constrainer.
  absl::StatusOr<std::unique_ptr<TokenConstraint>> Create(const std::string& description);

 private:
  struct Vocabulary;
  class Compiled;
  class Matcher;

  const std::shared_ptr<const Vocabulary> vocabulary_;
  std::list<std::pair<std::string, std::shared_ptr<Compiled>>> kept_;  // used last first
};

}  // namespace baton::grammar
