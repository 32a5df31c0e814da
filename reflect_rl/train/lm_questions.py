"""A language model behind an endpoint as the writer of questions about the files of a repository."""

import re
from collections.abc import Iterator

from reflect_rl.core.config import ClientConfig, TeacherConfig
from reflect_rl.lm.endpoint import Endpoint

NUMBER = 3  # of questions that are asked for
RULES = (
    "You write questions about a repository, each of which exactly one of its files answers. You are shown a file's path and "
    f"what it says of itself. Write {NUMBER} questions that this file answers and hardly another one, each on a line of its own, "
    "each beginning with Where or Which, of 5 to 20 words, in plain English and in words of your own as far as they say the "
    "same, without code, names of files, functions or classes. Write nothing else."
)


class LanguageModelWriter:
    """Writes questions about files, for an environment whose questions can have another writer than rules.

    A language model's words need not be the file's: such an environment should not insist that they are.

    Attributes:
        endpoint: counts what it costs.
    """

    def __init__(self, settings: TeacherConfig, client: ClientConfig | None = None):
        self.settings = settings
        self.endpoint = Endpoint(settings.endpoint, settings.model, client)

    def __call__(self, path: str, text: str, says: str) -> Iterator[tuple[str, str]]:
        """(`model`, question) for each line of the reply that is a question, without its number.

        `says` is what is shown of the file; the whole `text` is not sent. Nothing is asked where it is empty.
        """
        if not says:
            return
        messages = [{"role": "system", "content": RULES}, {"role": "user", "content": f"File: {path}\n{says}"}]
        reply = self.endpoint.reply(messages, self.settings.max_new_tokens)
        for line in reply.splitlines():
            question = re.sub(r"^\s*(?:\d+[.)]|[-*])\s*", "", line).strip()
            if re.match(r"(Where|Which)\b.*\?$", question):
                yield "model", question
