"""A gRPC server without generated code: messages are bytes."""

import sys
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "kept"), ("x-bin-bin", bytes([0, 255, 10]))))
    return b"hello " + request


def refuse(request, context):
    context.set_trailing_metadata((("x-reason", "asked for"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: \N{SNOWMAN}")


def both_ways(requests, context):
    for request in requests:
        yield b"re: " + request


def many(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def total(requests, context):
    return b"%d" % sum(int(request) for request in requests)


gone = threading.Event()


def endless(request, context):
    context.add_callback(gone.set)
    while context.is_active():
        yield b"more"
        time.sleep(0.01)


def was_cancelled(request, context):
    return b"yes" if gone.wait(5) else b"no"


def sleepy(request, context):
    time.sleep(5)
    return b"late"


def main():
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
        "Sleepy": grpc.unary_unary_rpc_method_handler(sleepy),
        "BothWays": grpc.stream_stream_rpc_method_handler(both_ways),
        "Many": grpc.unary_stream_rpc_method_handler(many),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Greeter", handlers),))
    server.add_insecure_port(sys.argv[1])
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
