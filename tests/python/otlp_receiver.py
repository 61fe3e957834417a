"""A collector of OpenTelemetry that reads every export by the published protocol, and writes each span and log record as a
line of JSON. Takes HTTP on the first port and gRPC on the second: otlp_receiver.py FILE ADDRESS HTTP GRPC."""

import gzip
import http.server
import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

file, address, http_port, grpc_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
out = open(file, "a", buffering=1)
lock = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value") or "string_value")


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def write(row):
    with lock:
        out.write(json.dumps(row, default=str) + "\n")


def take_spans(message, via):
    for group in message.resource_spans:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                assert len(span.parent_span_id) in (0, 8), span
                assert span.end_time_unix_nano >= span.start_time_unix_nano > 0, span
                write({
                    "via": via,
                    "resource": resource,
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "status": span.status.code,
                    "events": [attributes(event.attributes) for event in span.events],
                    "attributes": attributes(span.attributes),
                })


def take_logs(message, via):
    for group in message.resource_logs:
        for scope in group.scope_logs:
            for record in scope.log_records:
                write({"via": via, "log": value(record.body), "attributes": attributes(record.attributes)})


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        take_spans(request, "grpc")
        return trace_service_pb2.ExportTraceServiceResponse()


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        take_logs(request, "grpc")
        return logs_service_pb2.ExportLogsServiceResponse()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        assert self.headers["content-type"] == "application/x-protobuf", self.headers["content-type"]
        if self.path == "/v1/traces":
            take_spans(trace_service_pb2.ExportTraceServiceRequest.FromString(body), "http")
        elif self.path == "/v1/logs":
            take_logs(logs_service_pb2.ExportLogsServiceRequest.FromString(body), "http")
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


server = grpc.server(futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
server.add_insecure_port(f"{address}:{grpc_port}")
server.start()
receiver = http.server.ThreadingHTTPServer((address, http_port), Handler)
print("ready", flush=True)
receiver.serve_forever()
