"""The demo's background agent: reads the message as one JSON line on standard input, prints its result as another.

A handler of your own is any program that does the same; the environment names AGENT_ID, EXECUTION_ID and ATTEMPT.
"""

import json
import os
import sys


def main() -> None:
    message = json.loads(sys.stdin.readline())
    answer = {
        "success": True,
        "answer": f"Looked into it: {message.get('subject') or message['message']}",
        "pid": os.getpid(),
        "execution_id": os.environ["EXECUTION_ID"],
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
