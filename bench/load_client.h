#pragma once

// An HTTP/1.1 client that keeps thousands of requests open on one thread, and says when each piece
// of their answers came. Connections are kept and used again.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/answer_reader.h"
#include "common/clock.h"
#include "common/tls_files.h"

namespace baton::bench {

struct LoadUrl {
  std::string host, port;
  std::string path;  // before "/v1/...": "" or "/prefix"
  bool tls = false;
};
// "http://host:port/prefix" or "https://...". InvalidArgument for anything else.
absl::StatusOr<LoadUrl> ParseLoadUrl(std::string_view url);

enum class LoadEnd {
  kOk,
  kStatus,   // an HTTP status other than 200
  kError,    // an error event in a stream
  kConnect,  // no connection
  kBroken,   // the connection ended before the answer did
  kTimeout,  // no end in time
  kUnsound,  // no HTTP answer, or one without an end
};
std::string_view LoadEndName(LoadEnd end);

struct LoadAnswer {
  LoadEnd end = LoadEnd::kOk;
  AnswerFacts facts;
  TimePoint due;          // when it was to be sent: what waiting is counted from
  TimePoint sent;         // when it was
  TimePoint first_piece;  // of a stream's text; the end's time for a whole answer
  TimePoint ended;
  int32_t pieces = 0;
  std::vector<float> gaps_s;  // between pieces
  std::string body;           // of an answer in one piece
};

struct LoadClientOptions {
  LoadUrl url;
  Duration timeout = std::chrono::minutes(10);  // of one request, from when it was sent
  std::string headers;                          // whole lines, of every request that Get makes
  // With TLS the server's certificate must be from `ca` (the system's when "") and bear the host,
  // unless nothing is checked; `certificate` and `key` are for a server that asks for them.
  TlsFiles tls;
  bool insecure_tls = false;
  bool keep_gaps = true;
  // How long it looks for more before it sleeps. A sender pays for waking a sleeping receiver of
  // the same machine, as it would not pay for one behind a network card.
  Duration spin{};
};

// Not thread-safe: all calls on the thread that runs it, callbacks inside Run.
class LoadClient {
 public:
  // Unavailable when nobody listens there; InvalidArgument for TLS files that cannot be used.
  static absl::StatusOr<std::unique_ptr<LoadClient>> Create(const LoadClientOptions& options);
  virtual ~LoadClient() = default;  // drops what is open, without callbacks

  // `request`: head and body as they go out. `done` is called once. `on_first`, when set, is called
  // when the first piece of a stream comes.
  virtual void Send(std::string request, TimePoint due, std::function<void(LoadAnswer)> done,
                    std::function<void()> on_first = nullptr) = 0;
  // A GET of a path below the URL's: the body of an answer with status 200.
  virtual void Get(std::string_view path,
                   std::function<void(absl::StatusOr<std::string>)> done) = 0;
  virtual void At(TimePoint when, std::function<void()> call) = 0;
  // Until Stop, or until nothing is open and no call is due.
  virtual void Run() = 0;
  virtual void Stop() = 0;
  virtual int64_t open() const = 0;  // requests without their end
};

// POST of a JSON body. `headers`: whole lines.
std::string PostRequest(const LoadUrl& url, std::string_view path, std::string_view body,
                        std::string_view headers = "");

}  // namespace baton::bench
