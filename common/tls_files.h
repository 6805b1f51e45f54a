#pragma once

// The files of one end of TLS: PEM, as openssl writes them.

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace baton {

struct TlsFiles {
  std::string certificate;  // and the chain behind it
  std::string key;
  // Who the other end's certificate must be from. A server without it asks for none.
  std::string ca;

  bool on() const { return !certificate.empty(); }
  std::vector<std::string> paths() const;  // those that are given
};

// InvalidArgument, naming the flags' common `prefix` ("--tls"), unless certificate and key are
// given together, can be read, belong to each other and have not expired; likewise that the CA can
// be read, if there is one.
absl::Status CheckTlsFiles(const TlsFiles& files, const std::string& prefix);

}  // namespace baton
