"""A gRPC service behind Portico: it asks AuthService who is behind the token of each call.

    python greeter.py            # listens on 127.0.0.1:$PORT (7000), prints the port

PORTICO_GRPC names Portico's gRPC listener (127.0.0.1:9090), PORTICO_TOKEN the credential of this service.
"""

import os
from concurrent import futures

import greeter_pb2
import greeter_pb2_grpc
import grpc
from portico.identity.v1 import auth_pb2, auth_pb2_grpc

DEADLINE_S = 2


class Greeter(greeter_pb2_grpc.GreeterServicer):
    def __init__(self, auth, credential):
        self.auth = auth
        self.metadata = [("authorization", f"Bearer {credential}")]

    def Hello(self, request, context):
        sent = dict(context.invocation_metadata()).get("authorization", "")
        token = sent.removeprefix("Bearer ")
        asked = auth_pb2.VerifyTokenRequest(token=token)
        try:
            answer = self.auth.VerifyToken(asked, metadata=self.metadata, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"nobody can be verified now: {error.details()}")
        if not answer.active:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, answer.reason)
        return greeter_pb2.HelloResponse(text=f"hello {answer.principal.kind} {answer.principal.subject}")


def main():
    channel = grpc.insecure_channel(os.environ.get("PORTICO_GRPC", "127.0.0.1:9090"))
    auth = auth_pb2_grpc.AuthServiceStub(channel)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(auth, os.environ["PORTICO_TOKEN"]), server)
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', 7000)}")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
