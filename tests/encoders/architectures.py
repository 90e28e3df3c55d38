"""Small random encoders of today's architectures, made in a second: 2 layers of 32, a vocabulary from a few texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

transformers.utils.logging.disable_progress_bar()  # on stderr, where tests look for one line

TEXTS = [
    "How do I reset my password?",
    "I forgot my password, what now?",
    "What's the fee for a transfer to another bank?",
    "what is the fee for a card?",
    "Why can't I log in to the app?",
    "Can I change my delivery address after ordering?",
    "How long does a refund take, and where do I see it?",
    "Is my card blocked now? I can't pay with my card.",
    "query: Instruct: task: sentence similarity",
]
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 66,
}
DECODER = {"num_key_value_heads": 1, "head_dim": 16}
CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"


def wordpiece() -> Tokenizer:
    """BERT's tokenizer: [CLS] text [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_pairs(*special: str, template: str) -> Tokenizer:
    """Byte-level BPE with special tokens, and those that a template puts around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    used = [(token, tokenizer.token_to_id(token)) for token in special if token in template.split()]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return tokenizer


def _fast(tokenizer: Tokenizer, **options: Any) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **options)


def _bert_tokenizer() -> Any:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _fast(wordpiece(), mask_token="[MASK]", **names)


def _roberta_tokenizer() -> Any:
    tokenizer = byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>", template="<s> $A </s>")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return _fast(tokenizer, cls_token="<s>", sep_token="</s>", mask_token="<mask>", **names)


def _decoder_tokenizer(**options: Any) -> Any:
    tokenizer = byte_pairs("<|endoftext|>", "<|im_end|>", template="$A <|endoftext|>")
    return _fast(tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left", **options)


def _gemma_tokenizer() -> Any:
    tokenizer = byte_pairs("<pad>", "<eos>", "<bos>", "<unk>", template="<bos> $A <eos>")
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return _fast(tokenizer, **names)


def _bert() -> tuple[Any, Any, str]:
    return transformers.BertModel(transformers.BertConfig(vocab_size=300, **SIZE)), _bert_tokenizer(), "cls"


def _mpnet() -> tuple[Any, Any, str]:
    config = transformers.MPNetConfig(vocab_size=300, pad_token_id=0, **SIZE)
    return transformers.MPNetModel(config), _bert_tokenizer(), "mean"


def _roberta() -> tuple[Any, Any, str]:
    config = transformers.RobertaConfig(vocab_size=400, pad_token_id=1, type_vocab_size=1, **SIZE)
    return transformers.RobertaModel(config), _roberta_tokenizer(), "mean"


def _xlm_roberta() -> tuple[Any, Any, str]:
    config = transformers.XLMRobertaConfig(vocab_size=400, pad_token_id=1, type_vocab_size=1, **SIZE)
    return transformers.XLMRobertaModel(config), _roberta_tokenizer(), "mean"


def _modernbert() -> tuple[Any, Any, str]:
    ids = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
    config = transformers.ModernBertConfig(
        vocab_size=300, global_attn_every_n_layers=2, local_attention=8, reference_compile=False, **ids, **SIZE
    )
    return transformers.ModernBertModel(config), _bert_tokenizer(), "mean"


def _qwen3() -> tuple[Any, Any, str]:
    config = transformers.Qwen3Config(vocab_size=400, pad_token_id=0, eos_token_id=1, **DECODER, **SIZE)
    return transformers.Qwen3Model(config), _decoder_tokenizer(chat_template=CHAT), "lasttoken"


def _gemma3() -> tuple[Any, Any, str]:
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = transformers.Gemma3TextConfig(
        vocab_size=400, sliding_window=8, use_bidirectional_attention=True, **ids, **DECODER, **SIZE
    )
    return transformers.Gemma3TextModel(config), _gemma_tokenizer(), "mean"


ARCHITECTURES = {
    "bert": _bert,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "modernbert": _modernbert,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
}
QWEN_PROMPTS = {"query": "Instruct: task\nQuery:", "document": ""}
GEMMA_PROMPTS = {
    "query": "task: search | query: ",
    "document": "title: none | text: ",
    "Clustering": "task: clustering | query: ",
    "STS": "task: sentence similarity | query: ",
}
PROMPTS = {"qwen3": QWEN_PROMPTS, "gemma3": GEMMA_PROMPTS}


def write_encoder(name: str, folder: Path) -> Path:
    """Writes a small random encoder as its family is published: pooling, prompts, layers after the pooling."""
    torch.manual_seed(0)
    model, tokenizer, pooling = ARCHITECTURES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)  # vectors of different texts then differ
    model.eval().save_pretrained(folder / "bare")
    tokenizer.save_pretrained(folder / "bare")
    transformer = Transformer(str(folder / "bare"))
    rest: list[Any] = [Pooling(32, pooling)]
    if name == "gemma3":
        rest += [Dense(32, 48, bias=False, activation_function=torch.nn.Identity()), Dense(48, 32, bias=False)]
    encoder = SentenceTransformer(modules=[transformer, *rest, Normalize()], prompts=PROMPTS.get(name))
    encoder.save_pretrained(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def set_prompts(folder: Path, prompts: dict[str, str], default: str | None = None) -> None:
    """Writes the prompts of a saved encoder."""
    file = folder / "config_sentence_transformers.json"
    config = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**config, "prompts": prompts, "default_prompt_name": default}), encoding="utf-8")
