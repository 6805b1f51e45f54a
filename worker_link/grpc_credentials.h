#pragma once

// gRPC's credentials from PEM files, which are read again when they change. Internal to services:
// includes gRPC.

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "common/tls_files.h"

namespace baton::worker_link {

// Insecure without files. With a CA, only clients with a certificate from it are served.
std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files);

// Insecure without files. The server's certificate must be from the CA, and bear the name that is
// dialled.
std::shared_ptr<grpc::ChannelCredentials> ClientCredentials(const TlsFiles& files);

}  // namespace baton::worker_link
