"""Calls the server of grpc_server.py and prints one JSON object of results."""

import json
import queue
import sys
import time

import grpc

results = {}
options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
grpc.channel_ready_future(channel).result(timeout=10)


def note(name, ok, figure):
    results[name] = {"ok": bool(ok), "figure": str(figure)[:200]}


def attempt(name, run):
    try:
        run()
    except Exception as error:  # the claim's verdict carries whatever went wrong
        note(name, False, repr(error))


def unary():
    answer, call = channel.unary_unary("/lab.Greeter/Unary").with_call(b"mesh", timeout=10)
    note("unary", answer == b"hello mesh", answer)
    trailers = dict(call.trailing_metadata())
    note("trailers", trailers.get("x-trailer") == "kept" and trailers.get("x-bin-bin") == bytes([0, 255, 10]), trailers)


def status():
    try:
        channel.unary_unary("/lab.Greeter/Refuse")(b"", timeout=10)
        note("status", False, "no error")
    except grpc.RpcError as error:
        reason = dict(error.trailing_metadata()).get("x-reason")
        ok = error.code() == grpc.StatusCode.FAILED_PRECONDITION and "\N{SNOWMAN}" in error.details()
        note("status", ok and reason == "asked for", (error.code(), error.details(), reason))


def both_ways():
    questions = queue.Queue()
    answers = channel.stream_stream("/lab.Greeter/BothWays")(iter(questions.get, None), timeout=20)
    got = []
    for number in range(50):
        questions.put(b"%d" % number)
        got.append(next(answers))
    questions.put(None)
    rest = list(answers)
    note("both_ways", got == [b"re: %d" % n for n in range(50)] and rest == [], len(got))


def server_stream():
    got = list(channel.unary_stream("/lab.Greeter/Many")(b"1000", timeout=20))
    note("server_stream", got == [b"%d" % n for n in range(1000)], len(got))


def client_stream():
    answer = channel.stream_unary("/lab.Greeter/Total")((b"%d" % n for n in range(1000)), timeout=20)
    note("client_stream", answer == b"499500", answer)


def cancel():
    call = channel.unary_stream("/lab.Greeter/Endless")(b"")
    first = next(call)
    call.cancel()
    heard = channel.unary_unary("/lab.Greeter/WasCancelled")(b"", timeout=10)
    note("cancel", first == b"more" and heard == b"yes", (first, heard))


def deadline():
    began = time.monotonic()
    try:
        channel.unary_unary("/lab.Greeter/Sleepy")(b"", timeout=0.7)
        note("deadline", False, "no error")
    except grpc.RpcError as error:
        took = time.monotonic() - began
        note("deadline", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and took < 2, (error.code(), took))


def large():
    message = b"x" * (4 << 20)
    answer = channel.unary_unary("/lab.Greeter/Unary")(message, timeout=20)
    note("large", answer == b"hello " + message, len(answer))


attempt("unary", unary)
attempt("status", status)
attempt("both_ways", both_ways)
attempt("server_stream", server_stream)
attempt("client_stream", client_stream)
attempt("cancel", cancel)
attempt("deadline", deadline)
attempt("large", large)
print(json.dumps(results))
