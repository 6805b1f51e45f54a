#pragma once

// Which paths exist, and the answers of those that need no completion.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "router/dispatcher.h"
#include "router/http_response.h"
#include "router/openai_request.h"

namespace baton::router {

enum class Resource {
  kChat,            // POST /v1/chat/completions
  kCompletions,     // POST /v1/completions
  kTokenize,        // POST /tokenize
  kDetokenize,      // POST /detokenize
  kEmbeddings,      // POST /v1/embeddings: refused
  kResponses,       // POST /v1/responses
  kGenerate,        // POST /generate
  kGenerateStream,  // POST /generate_stream
  kInfo,            // GET /info
  kVersion,         // GET /version
  kModels,          // GET /v1/models
  kModel,           // GET /v1/models/{id}
  kHealth,          // GET /health
  kReady,           // GET /ready
  kMetrics,         // GET /metrics
  kUnknown,
};

struct Route {
  Resource resource = Resource::kUnknown;
  std::string model_id;  // of kModel, percent-decoded

  // A POST, which a CompletionCall answers.
  bool is_completion() const { return endpoint().has_value(); }
  std::optional<Endpoint> endpoint() const;
  // For Allow.
  std::string_view methods() const { return is_completion() ? "POST" : "GET, HEAD"; }
};

// `target` is a request line's: path and perhaps a query, which is ignored.
Route FindRoute(std::string_view target);

// The answer of a GET. `http_metrics` follows the dispatcher's own in /metrics; `started_s` (Unix
// time) is shown as the models' creation.
HttpResponse AnswerGet(const Route& route, const Dispatcher& dispatcher,
                       std::string_view http_metrics, int64_t started_s);

// Whether an API key is asked for where keys are in use. Whoever watches a server, and balances
// load over several, has none.
bool NeedsKey(const Route& route, bool open_metrics);

// 404 for an unknown path, naming the nearest known one.
HttpResponse UnknownPath(std::string_view target);

}  // namespace baton::router
