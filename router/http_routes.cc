#include "router/http_routes.h"

#include <fmt/format.h>

#include <vector>

#include "common/nearest_name.h"
#include "router/json_text.h"
#include "router/percent_decode.h"

namespace baton::router {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

struct Known {
  std::string_view path;
  Resource resource;
};
constexpr Known kPaths[] = {
    {"/v1/chat/completions", Resource::kChat},
    {"/v1/completions", Resource::kCompletions},
    {"/v1/embeddings", Resource::kEmbeddings},
    {"/v1/responses", Resource::kResponses},
    {"/tokenize", Resource::kTokenize},
    {"/detokenize", Resource::kDetokenize},
    {"/generate", Resource::kGenerate},
    {"/generate_stream", Resource::kGenerateStream},
    {"/info", Resource::kInfo},
    {"/version", Resource::kVersion},
    {"/v1/models", Resource::kModels},
    {"/health", Resource::kHealth},
    {"/ready", Resource::kReady},
    {"/metrics", Resource::kMetrics},
};

std::string_view PathOf(std::string_view target) { return target.substr(0, target.find('?')); }

void AppendModel(const ModelInfo& model, int64_t started_s, std::string* out) {
  out->append(R"({"id":)");
  AppendJsonString(model.name, out);
  out->append(R"(,"object":"model","created":)");
  AppendJsonInt(started_s, out);
  out->append(R"(,"owned_by":"baton","max_model_len":)");
  AppendJsonInt(model.context_tokens, out);
  out->push_back('}');
}

HttpResponse AnswerModels(const Dispatcher& dispatcher, int64_t started_s) {
  HttpResponse response;
  response.body = R"({"object":"list","data":[)";
  for (const ModelInfo& model : dispatcher.Models()) {
    if (response.body.back() != '[') response.body += ',';
    AppendModel(model, started_s, &response.body);
  }
  response.body += "]}";
  return response;
}

HttpResponse AnswerModel(const Dispatcher& dispatcher, const std::string& id, int64_t started_s) {
  for (const ModelInfo& model : dispatcher.Models()) {
    if (model.name != id) continue;
    HttpResponse response;
    AppendModel(model, started_s, &response.body);
    return response;
  }
  return ErrorResponse(404, fmt::format("there is no model '{}'", id), "model_not_found");
}

// What TGI tells of itself, as far as there is such a thing here.
HttpResponse AnswerInfo(const Dispatcher& dispatcher) {
  const std::vector<ModelInfo> models = dispatcher.Models();
  const ModelInfo model = models.empty() ? ModelInfo{} : models.front();
  const RequestLimits limits;
  HttpResponse response;
  response.body = R"({"model_id":)";
  AppendJsonString(model.name, &response.body);
  response.body += fmt::format(
      R"(,"model_sha":null,"max_input_tokens":{},"max_total_tokens":{},"max_best_of":1,)"
      R"("max_stop_sequences":{},"max_client_batch_size":1,"router":"baton"}})",
      model.context_tokens - 1, model.context_tokens, limits.max_stop_strings);
  return response;
}

}  // namespace

std::optional<Endpoint> Route::endpoint() const {
  switch (resource) {
    case Resource::kChat:
      return Endpoint::kChat;
    case Resource::kCompletions:
      return Endpoint::kCompletions;
    case Resource::kTokenize:
      return Endpoint::kTokenize;
    case Resource::kDetokenize:
      return Endpoint::kDetokenize;
    case Resource::kEmbeddings:
      return Endpoint::kEmbeddings;
    case Resource::kResponses:
      return Endpoint::kResponses;
    case Resource::kGenerate:
      return Endpoint::kGenerate;
    case Resource::kGenerateStream:
      return Endpoint::kGenerateStream;
    default:
      return std::nullopt;
  }
}

Route FindRoute(std::string_view target) {
  const std::string_view path = PathOf(target);
  for (const Known& known : kPaths) {
    if (known.path == path) return {known.resource, ""};
  }
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) {
    return {Resource::kModel, PercentDecode(path.substr(kModelPrefix.size()))};
  }
  return {};
}

HttpResponse AnswerGet(const Route& route, const Dispatcher& dispatcher,
                       std::string_view http_metrics, int64_t started_s) {
  HttpResponse response;
  switch (route.resource) {
    case Resource::kModels:
      return AnswerModels(dispatcher, started_s);
    case Resource::kModel:
      return AnswerModel(dispatcher, route.model_id, started_s);
    case Resource::kInfo:
      return AnswerInfo(dispatcher);
    case Resource::kVersion:
      response.body = R"({"version":")" BATON_VERSION R"("})";
      return response;
    case Resource::kReady:
      if (!dispatcher.Ready()) {
        return ErrorResponse(503, "no decode worker is connected and ready", "not_ready");
      }
      response.body = R"({"status":"ready"})";
      return response;
    case Resource::kMetrics:
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = dispatcher.MetricsText().append(http_metrics);
      return response;
    default:
      response.body = R"({"status":"ok"})";
      return response;
  }
}

bool NeedsKey(const Route& route, bool open_metrics) {
  switch (route.resource) {
    case Resource::kHealth:
    case Resource::kReady:
    case Resource::kVersion:
      return false;
    case Resource::kMetrics:
      return !open_metrics;
    default:
      return true;
  }
}

HttpResponse UnknownPath(std::string_view target) {
  const std::string_view path = PathOf(target);
  std::vector<std::string> known;
  for (const Known& each : kPaths) known.emplace_back(each.path);
  return ErrorResponse(
      404, fmt::format("there is no '{}'{}", path.substr(0, 128), DidYouMean(path, known)),
      "unknown_path");
}

}  // namespace baton::router
