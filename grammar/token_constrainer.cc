#include "grammar/token_constrainer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/status_macros.h"
#include "grammar/constraint.h"
#include "grammar/lazy_dfa.h"

namespace baton::grammar {

struct TokenConstrainer::Vocabulary {
  TokenTrie trie;
  bool drops_first_space;
};

// A constraint with what was found out about it. Shared by the sequences that have it.
class TokenConstrainer::Compiled {
 public:
  Compiled(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const Vocabulary> vocabulary)
      : vocabulary_(std::move(vocabulary)), dfa_(std::move(automaton)) {}

  LazyDfa& dfa() { return dfa_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

  // A sequence's state lives on, if perhaps under another id, until it leaves.
  void Join(int32_t* state) { states_.push_back(state); }
  void Leave(int32_t* state) { std::erase(states_, state); }

  // Forgets when there is too much.
  void MakeRoom() {
    if (Full()) Forget();
  }

  struct Tokens {
    std::vector<uint64_t> allowed, last;  // as in TokenConstraint::Next
  };
  // `state` has joined.
  const Tokens& Allowed(const int32_t& state, bool first) {
    const auto key = [&] { return static_cast<uint64_t>(state) << 1 | (first ? 1 : 0); };
    if (const auto known = tokens_.find(key()); known != tokens_.end()) return known->second;
    Tokens found;
    if (!FindAllowed(state, first, &found) || tokens_.size() >= kMaxKeptSets) {
      Forget();
      FindAllowed(state, first, &found);
    }
    return tokens_[key()] = std::move(found);
  }

 private:
  bool Full() const { return dfa_.work() > kMaxWork; }

  void Forget() {
    tokens_.clear();
    dfa_.KeepOnly(states_);
  }

  // False when it takes too much work; what is then not found is not allowed. That is a function of
  // the state alone where nothing else is remembered, and so is what is found with something
  // remembered: that counts as if it were found anew.
  bool FindAllowed(int32_t state, bool first, Tokens* tokens) {
    const size_t words = (vocabulary_->trie.vocab_size() + 63) / 64;
    tokens->allowed.assign(words, 0);
    tokens->last.assign(words, 0);
    bool full = false;
    vocabulary_->trie.Walk(
        state, first && vocabulary_->drops_first_space,
        [&](int32_t from, uint8_t byte) {
          full = full || Full();
          return full && from != state ? LazyDfa::kDead : dfa_.Next(from, byte);
        },
        [&](TokenId token, int32_t after) {
          const auto word = static_cast<size_t>(token) / 64;
          const uint64_t bit = uint64_t{1} << (token % 64);
          tokens->allowed[word] |= bit;
          if (!dfa_.goes_on(after)) tokens->last[word] |= bit;
        });
    return !full;
  }

  const std::shared_ptr<const Vocabulary> vocabulary_;
  LazyDfa dfa_;
  std::vector<int32_t*> states_;                  // of the sequences that are here
  absl::flat_hash_map<uint64_t, Tokens> tokens_;  // by state and whether first
};

// One sequence's place in its constraint.
class TokenConstrainer::Matcher final : public TokenConstraint {
 public:
  explicit Matcher(std::shared_ptr<Compiled> compiled)
      : compiled_(std::move(compiled)), state_(compiled_->dfa().begin()) {
    compiled_->Join(&state_);
  }
  ~Matcher() override { compiled_->Leave(&state_); }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  bool Ready(std::span<const TokenId> output) override {
    CatchUp(output, kReadAtATime);
    return read_ == output.size();
  }

  Next After(std::span<const TokenId> output) override {
    CatchUp(output, output.size());
    Next next;
    next.must_end = state_ == LazyDfa::kDead || !compiled_->dfa().goes_on(state_);
    next.may_end = state_ == LazyDfa::kDead || compiled_->dfa().accepts(state_);
    if (!next.must_end) {
      const Compiled::Tokens& tokens = compiled_->Allowed(state_, output.empty());
      next.allowed = tokens.allowed;
      next.last = tokens.last;
    }
    return next;
  }

 private:
  // Reads at most so many tokens.
  void CatchUp(std::span<const TokenId> output, size_t most) {
    if (output.size() < read_) {
      state_ = compiled_->dfa().begin();
      read_ = 0;
    }
    const size_t end = std::min(output.size() - read_, most) + read_;
    for (; read_ < end && state_ != LazyDfa::kDead; ++read_) {
      std::string_view text = compiled_->vocabulary().trie.text(output[read_]);
      const bool drop = read_ == 0 && compiled_->vocabulary().drops_first_space;
      if (drop && text.starts_with(' ')) text.remove_prefix(1);
      for (const char c : text) {
        if (state_ == LazyDfa::kDead) break;
        state_ = compiled_->dfa().Next(state_, static_cast<uint8_t>(c));
      }
      compiled_->MakeRoom();
    }
    if (state_ == LazyDfa::kDead) read_ = output.size();
  }

  const std::shared_ptr<Compiled> compiled_;
  int32_t state_;
  size_t read_ = 0;  // tokens of the output
};

TokenConstrainer::TokenConstrainer(const std::vector<std::string_view>& token_texts,
                                   bool drops_first_space)
    : vocabulary_(std::make_shared<const Vocabulary>(
          Vocabulary{TokenTrie(token_texts), drops_first_space})) {}

TokenConstrainer::~TokenConstrainer() = default;

bool TokenConstrainer::Has(const std::string& description) const {
  return std::ranges::any_of(kept_, [&](const auto& kept) { return kept.first == description; });
}

absl::StatusOr<std::unique_ptr<TokenConstraint>> TokenConstrainer::Create(
    const std::string& description) {
  const auto known = std::ranges::find(
      kept_, description, [](const auto& kept) -> const auto& { return kept.first; });
  if (known != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, known);
  } else {
    BATON_ASSIGN_OR_RETURN(std::shared_ptr<const Automaton> automaton,
                           CompileConstraint(description));
    kept_.emplace_front(description, std::make_shared<Compiled>(std::move(automaton), vocabulary_));
    if (kept_.size() > kMaxKept) kept_.pop_back();
  }
  return std::make_unique<Matcher>(kept_.front().second);
}

}  // namespace baton::grammar
