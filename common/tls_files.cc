#include "common/tls_files.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/status/statusor.h"
#include "common/status_macros.h"

namespace baton {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

absl::StatusOr<File> Open(const std::string& flag, const std::string& path) {
  File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file != nullptr) return file;
  return absl::InvalidArgumentError(
      fmt::format("{}: {} cannot be read: {}", flag, path, std::strerror(errno)));
}

std::string OpensslReason() {
  const char* const reason = ERR_reason_error_string(ERR_get_error());
  ERR_clear_error();
  return reason == nullptr ? "not PEM" : reason;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& flag, const std::string& path) {
  BATON_ASSIGN_OR_RETURN(const File file, Open(flag, path));
  Certificate certificate(PEM_read_X509(file.get(), nullptr, nullptr, nullptr), X509_free);
  if (certificate != nullptr) return certificate;
  return absl::InvalidArgumentError(
      fmt::format("{}: {} has no certificate: {}", flag, path, OpensslReason()));
}

absl::StatusOr<Key> ReadPrivateKey(const std::string& flag, const std::string& path) {
  BATON_ASSIGN_OR_RETURN(const File file, Open(flag, path));
  // Without a callback OpenSSL would ask the terminal for a password.
  const auto no_password = [](char*, int, int, void*) { return 0; };
  Key key(PEM_read_PrivateKey(file.get(), nullptr, no_password, nullptr), EVP_PKEY_free);
  if (key != nullptr) return key;
  return absl::InvalidArgumentError(
      fmt::format("{}: {} has no private key without a password: {}", flag, path, OpensslReason()));
}

}  // namespace

std::vector<std::string> TlsFiles::paths() const {
  std::vector<std::string> given;
  for (const std::string* path : {&certificate, &key, &ca}) {
    if (!path->empty()) given.push_back(*path);
  }
  return given;
}

absl::Status CheckTlsFiles(const TlsFiles& files, const std::string& prefix) {
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(fmt::format("{0}-cert and {0}-key need each other", prefix));
  }
  if (!files.on()) {
    if (files.ca.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("a CA needs {0}-cert and {0}-key beside it", prefix));
  }
  BATON_ASSIGN_OR_RETURN(const Certificate certificate,
                         ReadCertificate(prefix + "-cert", files.certificate));
  BATON_ASSIGN_OR_RETURN(const Key key, ReadPrivateKey(prefix + "-key", files.key));
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        fmt::format("{} is not the key of the certificate {}", files.key, files.certificate));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return absl::InvalidArgumentError(
        fmt::format("the certificate {} has expired: nobody would take it", files.certificate));
  }
  if (files.ca.empty()) return absl::OkStatus();
  return ReadCertificate(prefix + " CA", files.ca).status();
}

}  // namespace baton
