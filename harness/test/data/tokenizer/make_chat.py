# SPDX-License-Identifier: Apache-2.0
"""Makes chat.json, the golden data of test_chat.c, with Transformers' apply_chat_template.

  pip install transformers jinja2
  python make_chat.py                     chat.json
  python make_chat.py --real OUT FILE...  the same for templates of real models, one a .jinja file; check them with
                                          NEXUS_CHAT_CASES=OUT build/tests/test_chat

chat.json: {turns: lists of turns, formats: [{format, template, bos, eos, expected}]}; expected has for each list of turns the
text with and without the generation prompt, null where the template raises an exception. The templates are our own, as short as they can be and still be recognised: those of real models
are not ours to copy. date_string is given where a template would ask the clock.
"""

import argparse
import json
import os

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))

ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}")
SPLIT_SYSTEM = ("{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}"
                "{%- else %}{%- set loop_messages = messages %}{%- endif %}")
CHATML_TURN = "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
LLAMA3_TURN = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>'"
LLAMA3_PROMPT = "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"


def mistral(opened, closed, answer, place):
    return (SPLIT_SYSTEM + "{{- bos_token }}{%- for message in loop_messages %}" + ALTERNATE.replace("{% if", "{%- if").replace("{{ r", "{{- r") +
            "{%- if message['role'] == 'user' %}{%- if loop." + place + " and system_message is defined %}"
            "{{- '" + opened + "' + system_message + '\\n\\n' + message['content'] + '" + closed + "' }}"
            "{%- else %}{{- '" + opened + "' + message['content'] + '" + closed + "' }}{%- endif %}"
            "{%- elif message['role'] == 'assistant' %}{{- " + answer + " + eos_token}}{%- endif %}{%- endfor %}")


def old_mistral(after):
    return ("{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
            "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token" + after + "}}{% endif %}{% endfor %}")


QWEN3 = """{%- set ns = namespace(last_query_index=messages|length - 1, looking=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.looking and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last_query_index = (messages|length - 1) - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set reasoning_content = '' %}
    {%- if message.role == "assistant" %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') + '<|im_end|>\\n' }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
          "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
          "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
          "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")

LOOP = "{% for message in messages %}"
OWN = [
    ("chatml", LOOP + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT, "<|endoftext|>", "<|im_end|>"),
    ("chatml", LOOP + "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are terse.<|im_end|>\n' }}{% endif %}" + CHATML_TURN +
     "{% endfor %}" + CHATML_PROMPT, "<|endoftext|>", "<|im_end|>"),
    ("chatml", "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
     "{%- else %}{{- '<|im_start|>system\\nYou are made up.<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}"
     "{%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\") %}"
     "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}" + CHATML_PROMPT, None, "<|im_end|>"),
    ("chatml", "{{ bos_token }}" + LOOP + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT, "<s>", "</s>"),
    ("qwen3", QWEN3, None, "<|im_end|>"),
    ("llama-3", "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = " + LLAMA3_TURN + " %}"
     "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
     "{% if add_generation_prompt %}" + LLAMA3_PROMPT + "{% endif %}", "<|begin_of_text|>", "<|eot_id|>"),
    ("llama-3", "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = " + LLAMA3_TURN + " %}"
     "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}" + LLAMA3_PROMPT, "<|begin_of_text|>", "<|eot_id|>"),
    ("llama-3.1", LLAMA31, "<|begin_of_text|>", "<|eot_id|>"),
    ("llama-2", LLAMA2, "<s>", "</s>"),
    ("mistral", old_mistral(""), "<s>", "</s>"),
    ("mistral", old_mistral(" + ' '"), "<s>", "</s>"),
    ("mistral-v1", mistral(" [INST] ", " [/INST]", "' ' + message['content']", "first"), "<s>", "</s>"),
    ("mistral-v3", mistral("[INST] ", "[/INST]", "' ' + message['content']|trim", "last"), "<s>", "</s>"),
    ("mistral-v3-tekken", mistral("[INST]", "[/INST]", "message['content']", "last"), "<s>", "</s>"),
    ("mistral-v3-tekken", mistral("[INST]", "[/INST]", "message['content']", "first"), "<s>", "</s>"),
    # Recognised as being none of these.
    ("chatml-like", LOOP + CHATML_TURN.replace("message['content']", "message['content'] | trim") + "{% endfor %}" + CHATML_PROMPT, None, "<|im_end|>"),
    ("plain", LOOP + "{{ '### ' + message['role'] + message['content'] }}{% endfor %}", None, None),
    ("plain", LLAMA2.replace("content.strip()", "content"), "<s>", "</s>"),
]

SYSTEM = {"role": "system", "content": " Be brief.\n"}
USER = {"role": "user", "content": "Hello, w\u00f6rld! <|im_end|> [INST]"}
SPACED = {"role": "user", "content": " \n\u3000spaced\u00a0\u001d "}
ANSWER = {"role": "assistant", "content": "  Hi there\n"}
THOUGHT = {"role": "assistant", "content": "<think>\n\nHm.\n<think>more\n\n</think>\n\n Yes.\n"}
LATE = {"role": "assistant", "content": "no start </think> x </think>\nend"}
TOOL = {"role": "user", "content": "<tool_response>3</tool_response>"}
TURNS = [
    [USER], [SYSTEM, USER], [USER, ANSWER, SPACED], [SYSTEM, USER, ANSWER, USER], [SYSTEM, SPACED, ANSWER], [USER, THOUGHT, USER], [USER, THOUGHT],
    [USER, LATE, USER, LATE], [SYSTEM, USER, ANSWER, USER, THOUGHT, SPACED], [USER, THOUGHT, TOOL, ANSWER], [USER, THOUGHT, TOOL], [USER, USER], [ANSWER, USER],
    [SYSTEM, USER, SYSTEM, USER], [{"role": "user", "content": ""}],
]


def render(tok, name, turns, prompt):
    # These templates leave the turn out without a word (Llama 2) or raise an exception (Mistral); we refuse.
    if name.startswith(("llama-2", "mistral")) and SYSTEM in turns[1:]:
        return None
    try:
        return tok.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, date_string="26 Jul 2024")
    except Exception as e:  # the template's own, or what it cannot do with these turns
        assert "alternate" in str(e) or "roles are supported" in str(e), e
        return None


def cases(name, template, bos, eos):
    entry = {"format": name, "template": template, "bos": bos, "eos": eos, "expected": []}
    if name in ("plain", "chatml-like"):
        return entry
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos, chat_template=template)
    for turns in TURNS:
        entry["expected"].append([render(tok, name, turns, prompt) for prompt in (True, False)])
    return entry


def write(path, entries):
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"turns": TURNS, "formats": entries}, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", nargs="+", metavar=("OUT", "FILE"), help="each FILE is FORMAT:BOS:EOS:PATH")
    args = parser.parse_args()
    if not args.real:
        write(os.path.join(HERE, "chat.json"), [cases(*own) for own in OWN])
        return
    entries = []
    for spec in args.real[1:]:
        name, bos, eos, path = spec.split(":", 3)
        with open(path, encoding="utf-8") as f:
            entries.append(cases(name, f.read(), bos or None, eos or None))
    write(args.real[0], entries)


if __name__ == "__main__":
    main()
