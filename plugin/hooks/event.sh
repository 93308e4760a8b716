#!/bin/sh
# event.sh limit | prompt: what the plugin does at an event of a session, told as JSON on stdin.
# It prints nothing or one JSON object, starts nothing that waits, and always ends with 0: it can hold up no session.
# (No redirection of a special builtin into a file: where that fails, dash ends with 2, which the CLI takes for a "no".)
# What a hook says at StopFailure is ignored (claude 2.1.330), so a reached limit is noted, and said at the next prompt.
exec 2>/dev/null
note=${CLAUDE_PLUGIN_DATA:-/nonexistent}/limit

limit() {
    # The words are the CLI's for a used-up plan. A busy API is a rate limit as well; it passes by itself.
    case $(head -c 100000 | tr -d '\000') in
    *'"last_assistant_message":"You'*'ve hit your '* | *'"last_assistant_message":"You'*'ve reached your '* | \
        *'"last_assistant_message":"You'*'re out of '* | *'"last_assistant_message":"Your org is out of '*) touch "$note" ;;
    esac
}

prompt() {
    cat >/dev/null
    said=
    if [ -f "$note" ]; then
        # A window of a plan lasts five hours: an older note is no news.
        [ -n "$(find "$note" -mmin -300)" ] && command -v farmhand >/dev/null && said=$OFFER
        rm -f "$note"
    fi
    [ "${CLAUDE_PLUGIN_OPTION_REMINDER:-}" = true ] && said=$said${said:+, }$REMINDER
    [ -z "$said" ] || printf '{%s}\n' "$said"
}

OFFER='"systemMessage": "Your plan is at its limit. Your farm can go on now, paid by its own key. In this session: '
OFFER=$OFFER'! claude-cheap \"one task\", or ! farmhand batch tasks.jsonl --out answers.jsonl. '
OFFER=$OFFER'For work on a repository: farmhand code. What it costs: farmhand cost."'
REMINDER='"hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "additionalContext": '
REMINDER=$REMINDER'"If parts of this are easy and stand alone (skill farmhand:farm-out), give them to farm_batch; keep the rest."}'

case ${1:-} in
limit) limit ;;
prompt) prompt ;;
esac
exit 0
