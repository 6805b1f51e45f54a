#pragma once

// Where etcd is, and who asks it.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/tls_files.h"

namespace baton::discovery {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // http://HOST:PORT or https://HOST:PORT, all of one kind
  std::string prefix = "/baton/";      // of the keys; ends with '/'
  TlsFiles tls;                        // with https: the CA; certificate and key if etcd asks
  std::string user;                    // "": etcd asks for none
  std::string password_file;           // read at each dial, without its line's end

  bool on() const { return !endpoints.empty(); }
  bool encrypted() const;
  // "http://a:2379, http://b:2379", for logs and errors.
  std::string Where() const;
};

// InvalidArgument, naming the flag and what is wrong with its value.
absl::Status CheckEtcdOptions(const EtcdOptions& options);

// "a:2379" of "http://a:2379": what gRPC dials. The endpoint has passed the check.
std::string DialAddress(const std::string& endpoint);

// The first line of the password file.
absl::Status ReadPassword(const EtcdOptions& options, std::string* password);

// The first key behind all that begin with `prefix`, as etcd's ranges want it.
std::string PrefixEnd(std::string prefix);

}  // namespace baton::discovery
