"""Shell completion: a script for bash or zsh, generated from the help of each verb.

The script that jsonargparse makes with shtab expands the options of every subclass: 67 MB, generated in over a minute.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from unigap.console.mistakes import hint

OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w.]*")
BASH = """_unigap() {{
    local known="{verbs}"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case "${{COMP_WORDS[*]:1:2}}" in
{cases}
            *) known="" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$known" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _unigap unigap
"""
SHELLS = {"bash": BASH, "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + BASH}
Main = Callable[[Sequence[str]], object]


def completion(shell: str, verbs: Iterable[str], groups: Mapping[str, Iterable[str]], main: Main) -> str:
    """Return a script to source; then the shell completes verbs, options and file names.

    Args:
        shell: ``bash`` or ``zsh``.
        verbs: The verbs.
        groups: The verbs of two words, with their second words.
        main: Function that runs a command; called with ``--help`` for each verb.

    Raises:
        ValueError: The shell is another one.
    """
    if shell not in SHELLS:
        raise ValueError(f"no completion for {shell!r}{hint(shell, SHELLS)}")
    cases = []
    for verb in verbs:
        if verb in groups:
            for second in groups[verb]:
                cases.append(f'"{verb} {second}") known="{" ".join(options((verb, second), main))}" ;;')
            cases.append(f'{verb} | "{verb} "*) known="{" ".join(groups[verb])}" ;;')
        else:
            cases.append(f'{verb} | "{verb} "*) known="{" ".join(options((verb,), main))}" ;;')
    indented = "\n".join(f"            {case}" for case in cases)
    return SHELLS[shell].format(verbs=" ".join(verbs), cases=indented)


def options(command: Sequence[str], main: Main) -> list[str]:
    """Return the options in the help of a command, in its order."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return list(dict.fromkeys(OPTION.findall(printed.getvalue())))
