#include "grammar/token_constrainer.h"

#include <algorithm>
#include <optional>
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
  // States of an older generation are forgotten.
  uint64_t generation() const { return generation_; }

  // Makes room where there is too little; `state` lives on, under the id that is returned.
  int32_t MakeRoom(int32_t state) {
    if (Bytes() <= kMaxKeptBytes) return state;
    return Forget(state);
  }

  // `state` may get another id.
  std::span<const uint64_t> Allowed(int32_t* state, bool first) {
    const uint64_t key = static_cast<uint64_t>(*state) << 1 | (first ? 1 : 0);
    if (const auto known = masks_.find(key); known != masks_.end()) return known->second;
    std::vector<uint64_t> mask;
    if (!FindAllowed(*state, first, &mask)) {
      *state = Forget(*state);
      FindAllowed(*state, first, &mask);
    }
    const uint64_t now = static_cast<uint64_t>(*state) << 1 | (first ? 1 : 0);
    return masks_[now] = std::move(mask);
  }

 private:
  size_t Bytes() const {
    const size_t mask_bytes = vocabulary_->trie.vocab_size() / 8 + 64;
    return dfa_.memory_bytes() + masks_.size() * mask_bytes;
  }

  int32_t Forget(int32_t state) {
    ++generation_;
    masks_.clear();
    return dfa_.KeepOnly(state);
  }

  // False when it takes too much memory; what is then not found is not allowed. That is a function
  // of the state alone where nothing else is remembered.
  bool FindAllowed(int32_t state, bool first, std::vector<uint64_t>* mask) {
    mask->assign((vocabulary_->trie.vocab_size() + 63) / 64, 0);
    bool full = false;
    vocabulary_->trie.Walk(
        state, first && vocabulary_->drops_first_space,
        [&](int32_t from, uint8_t byte) {
          full = full || dfa_.memory_bytes() > kMaxKeptBytes;
          return full ? LazyDfa::kDead : dfa_.Next(from, byte);
        },
        [&](TokenId token) {
          (*mask)[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
        });
    return !full;
  }

  const std::shared_ptr<const Vocabulary> vocabulary_;
  LazyDfa dfa_;
  uint64_t generation_ = 0;
  absl::flat_hash_map<uint64_t, std::vector<uint64_t>> masks_;  // by state and whether first
};

// One sequence's place in its constraint.
class TokenConstrainer::Matcher final : public TokenConstraint {
 public:
  explicit Matcher(std::shared_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {
    Restart();
  }

  Next After(std::span<const TokenId> output) override {
    Next next;
    next.must_end = MustEnd(output);
    next.may_end = state_ == LazyDfa::kDead || compiled_->dfa().accepts(state_);
    if (!next.must_end) {
      next.allowed = compiled_->Allowed(&state_, output.empty());
      generation_ = compiled_->generation();
    }
    return next;
  }

  bool MustEnd(std::span<const TokenId> output) override {
    CatchUp(output);
    return state_ == LazyDfa::kDead || !compiled_->dfa().goes_on(state_);
  }

 private:
  void Restart() {
    generation_ = compiled_->generation();
    state_ = compiled_->dfa().begin();
    read_ = 0;
  }

  void CatchUp(std::span<const TokenId> output) {
    if (generation_ != compiled_->generation() || output.size() < read_) Restart();
    for (; read_ < output.size() && state_ != LazyDfa::kDead; ++read_) {
      std::string_view text = compiled_->vocabulary().trie.text(output[read_]);
      const bool drop = read_ == 0 && compiled_->vocabulary().drops_first_space;
      if (drop && text.starts_with(' ')) text.remove_prefix(1);
      for (const char c : text) {
        if (state_ == LazyDfa::kDead) break;
        state_ = compiled_->dfa().Next(state_, static_cast<uint8_t>(c));
      }
      if (state_ == LazyDfa::kDead) break;
      state_ = compiled_->MakeRoom(state_);
      generation_ = compiled_->generation();
    }
    if (state_ == LazyDfa::kDead) read_ = output.size();
  }

  const std::shared_ptr<Compiled> compiled_;
  uint64_t generation_ = 0;
  int32_t state_ = 0;
  size_t read_ = 0;  // tokens of the output
};

TokenConstrainer::TokenConstrainer(const std::vector<std::string_view>& token_texts,
                                   bool drops_first_space)
    : vocabulary_(std::make_shared<const Vocabulary>(
          Vocabulary{TokenTrie(token_texts), drops_first_space})) {}

TokenConstrainer::~TokenConstrainer() = default;

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
