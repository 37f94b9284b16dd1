"""An HTTP client of Python's standard library, which does what it reads line by line."""

import http.client
import sys
import traceback
import urllib.error
import urllib.request

kept = None


def fetch(url):
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def leave(url):
    """Closes in the middle of the answer."""
    with urllib.request.urlopen(url) as response:
        response.read(10)
        print("reading", flush=True)
        sys.stdin.readline()
    return "closed"


def keep(port):
    """Has a request answered on a connection that is kept."""
    global kept
    kept = http.client.HTTPConnection("127.0.0.1", int(port))
    return again()


def again():
    """Uses the connection again."""
    kept.request("GET", "/")
    return kept.getresponse().read().decode()


def push():
    """Sends more of a request."""
    kept.send(b"more")
    return "sent"


def drop():
    kept.close()
    return "closed"


commands = {"fetch": fetch, "leave": leave, "keep": keep, "again": again, "push": push, "drop": drop}
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        answer = commands[words[0]](*words[1:])
    except urllib.error.URLError as error:
        answer = traceback.format_exception_only(error.reason)[-1].strip()
    except OSError as error:
        answer = traceback.format_exception_only(error)[-1].strip()
    print(answer, flush=True)
