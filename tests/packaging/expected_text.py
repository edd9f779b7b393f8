"""Saves a small model and prints the text that it makes: python expected_text.py FOLDER PROMPT"""

import sys
from pathlib import Path

import transformers

import mistral_ext

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
from helpers.checkpoint import save_small_checkpoint

folder, prompt = sys.argv[1:]
save_small_checkpoint(Path(folder))
model = mistral_ext.MistralForCausalLM.from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(prompt, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=128, do_sample=False)[0]
print(tokenizer.decode(output, skip_special_tokens=True))
