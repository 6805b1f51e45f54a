#include <fmt/format.h>
#include <openssl/ssl.h>

#include <string_view>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/http_stream.h"

namespace baton::router {
namespace {

namespace ssl = boost::asio::ssl;

constexpr auto kLookEvery = std::chrono::seconds(1);

// Of what a client offers: HTTP/1.1, or nothing.
int ChooseProtocol(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
                   const unsigned char* offered, unsigned offered_bytes, void*) {
  constexpr std::string_view kHttp = "http/1.1";
  const std::string_view all(reinterpret_cast<const char*>(offered), offered_bytes);
  for (size_t at = 0; at < all.size(); at += 1 + static_cast<unsigned char>(all[at])) {
    if (all.substr(at + 1, static_cast<unsigned char>(all[at])) != kHttp) continue;
    *chosen = offered + at + 1;
    *chosen_bytes = kHttp.size();
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

absl::StatusOr<SslContext> MakeContext(const TlsFiles& files) {
  BATON_RETURN_IF_ERROR(CheckTlsFiles(files, "--tls"));
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_alpn_select_cb(context->native_handle(), ChooseProtocol, nullptr);
  boost::system::error_code error;
  context->use_certificate_chain_file(files.certificate, error);
  if (!error) context->use_private_key_file(files.key, ssl::context::pem, error);
  if (!error && !files.ca.empty()) {
    context->load_verify_file(files.ca, error);
    if (!error) {
      context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
    }
    // Sessions of clients with certificates are only resumed under this server's name.
    SSL_CTX_set_session_id_context(context->native_handle(),
                                   reinterpret_cast<const unsigned char*>("baton"), 5);
  }
  if (!error) return context;
  return absl::InvalidArgumentError(
      fmt::format("TLS with the certificate {}: {}", files.certificate, error.message()));
}

}  // namespace

absl::Status HttpTls::Load() {
  if (!files_.on()) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(context_, MakeContext(files_));
  return absl::OkStatus();
}

SslContext HttpTls::Current() {
  if (context_ == nullptr) return nullptr;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_look_) return context_;
  next_look_ = now + kLookEvery;
  if (!watch_.Changed()) return context_;
  absl::StatusOr<SslContext> context = MakeContext(files_);
  if (context.ok()) {
    LogInfo(fmt::format("the certificate {} changed, and is used from now on", files_.certificate));
    context_ = *std::move(context);
  } else {
    LogError(fmt::format("{}; the certificate stays as it was",
                         std::string(context.status().message())));
  }
  return context_;
}

}  // namespace baton::router
