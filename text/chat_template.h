#pragma once

// Chat messages to prompt text by the model's own Jinja template.

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/tokenizer.h"

namespace baton::text {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
  std::string tool_calls = "";    // of an assistant: a JSON array as HTTP clients send it; "": none
  std::string tool_call_id = "";  // of a tool's answer
  std::string name = "";
};

// What the clock on the wall says; templates may print the date (strftime_now).
using WallClock = std::time_t (*)();

// A small, bounded Jinja interpreter (no file access, no calls out; steps, depth and output are
// bounded), enough for the templates of SmolLM2, Llama 3, Qwen 2/3, Mistral, Gemma and Phi. Renders
// as Hugging Face's apply_chat_template does without documents (they are none).
// Immutable after Create; Render is thread-safe.
class ChatTemplate {
 public:
  // InvalidArgument with line and column where the template does not parse. bos and eos are the
  // texts of those tokens, for templates that print them.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Create(std::string_view source,
                                                                    std::string bos,
                                                                    std::string eos,
                                                                    WallClock now = nullptr);
  // The template of a model file. NotFound when it has none.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> FromFile(const GgufFile& file,
                                                                      const Tokenizer& tokenizer);
  virtual ~ChatTemplate() = default;

  // The prompt as pieces: what the template wrote may hold special tokens, what came from message
  // contents and roles is plain text, also when the template trims, concatenates or slices it.
  // InvalidArgument when the template itself refuses (raise_exception: its message is quoted), and
  // ResourceExhausted when a bound is hit. `tools`: a JSON array of what the model may call; ""
  // none. What came from there is plain text, too.
  virtual absl::StatusOr<std::vector<TextPiece>> Render(const std::vector<ChatMessage>& messages,
                                                        bool add_generation_prompt,
                                                        std::string_view tools = "") const = 0;

  // The template itself, for what must be known of it beforehand.
  virtual std::string_view source() const = 0;
};

}  // namespace baton::text
