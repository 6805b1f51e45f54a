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

// Not thread-safe, as what it makes. Keeps what it has found out for the constraints that were used
// last, and for each no more than kMaxWork found; a constraint's answers never depend on it.
class TokenConstrainer {
 public:
  static constexpr size_t kMaxKept = 16;
  static constexpr size_t kMaxKeptSets = 512;  // of allowed tokens, for one constraint
  // Work (LazyDfa::work) after which what was found is forgotten, and the most that is done for one
  // set of allowed tokens: for a token's first byte everything is found out, for more bytes as much
  // as that allows. What is not found then is not allowed.
  static constexpr size_t kMaxWork = 600'000;
  // Tokens of an output that are read at a time, where many were not read yet.
  static constexpr size_t kReadAtATime = 256;

  // One text a token; "" for tokens that stand for nothing: they are never allowed. Where the
  // tokenizer drops a space at the beginning of a text, the constraint is on what is left.
  TokenConstrainer(const std::vector<std::string_view>& token_texts, bool drops_first_space);
  ~TokenConstrainer();
  TokenConstrainer(const TokenConstrainer&) = delete;
  TokenConstrainer& operator=(const TokenConstrainer&) = delete;

  // InvalidArgument as CompileConstraint. The result may outlive the constrainer.
  absl::StatusOr<std::unique_ptr<TokenConstraint>> Create(const std::string& description);
  // Whether Create would not have to compile.
  bool Has(const std::string& description) const;

 private:
  struct Vocabulary;
  class Compiled;
  class Matcher;

  const std::shared_ptr<const Vocabulary> vocabulary_;
  std::list<std::pair<std::string, std::shared_ptr<Compiled>>> kept_;  // used last first
};

}  // namespace baton::grammar
