"""A Llama-architecture language model, general over its shape.

RoPE rotates adjacent pairs, as the GGUF llama convention has it, so that the
weights are exported without a permutation.
"""
import json
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Shape:
    name: str
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab: int
    context: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    n_future: int = 1  # tokens predicted at each position; above 1: extra one-layer heads (2404.19737)

    @classmethod
    def load(cls, path):
        with open(path) as f:
            return cls(**json.load(f))

    def dict(self):
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight.float()
        return y.to(x.dtype)


def rotate_pairs(x, cos, sin):
    """x: [batch, time, heads, head_dim]; cos, sin: [time, head_dim / 2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        q, kv = s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim
        self.attn_norm = RMSNorm(s.d_model, s.norm_eps)
        self.qkv = nn.Linear(s.d_model, q + 2 * kv, bias=False)
        self.out = nn.Linear(q, s.d_model, bias=False)
        self.ffn_norm = RMSNorm(s.d_model, s.norm_eps)
        self.gate_up = nn.Linear(s.d_model, 2 * s.d_ff, bias=False)
        self.down = nn.Linear(s.d_ff, s.d_model, bias=False)

    def forward(self, x, cos, sin):
        s = self.s
        qkv = self.qkv(self.attn_norm(x)).unflatten(-1, (-1, s.head_dim))
        q, k, v = qkv.split((s.n_heads, s.n_kv_heads, s.n_kv_heads), 2)
        q, k = rotate_pairs(q, cos, sin), rotate_pairs(k, cos, sin)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                           is_causal=True, enable_gqa=s.n_heads != s.n_kv_heads)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class LM(nn.Module):
    """The trunk and its tied head; hidden() is what further heads attach to.

    With n_future = n the last block is the head of the next token, and n - 1 further blocks beside it,
    on the same input, are those of the tokens after that; norm and unembedding are shared (2404.19737
    section 2). Without the extra heads the model is an ordinary one of the same shape.
    """

    def __init__(self, shape):
        super().__init__()
        self.shape = s = shape
        self.embed = nn.Embedding(s.vocab, s.d_model)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.n_layers))
        self.extra = nn.ModuleList(Block(s) for _ in range(s.n_future - 1))
        self.norm = RMSNorm(s.d_model, s.norm_eps)
        freq = s.rope_theta ** -(torch.arange(0, s.head_dim, 2).double() / s.head_dim)
        angle = torch.arange(s.context).double()[:, None] * freq
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        for block in (*self.blocks, *self.extra):
            for lin in (block.qkv, block.out, block.gate_up, block.down):
                std = 0.5 * lin.in_features ** -0.5
                if lin in (block.out, block.down):
                    std /= (2 * s.n_layers) ** 0.5
                nn.init.normal_(lin.weight, std=std)

    def trunk(self, ids):
        """The residual stream that enters the last block, and RoPE's tables."""
        t = ids.shape[1]
        x = self.embed(ids)
        if x.is_cuda:
            x = x.bfloat16()
        cos, sin = self.cos[:t], self.sin[:t]
        for block in self.blocks[:-1]:
            x = block(x, cos, sin)
        return x, cos, sin

    def hidden(self, ids):
        x, cos, sin = self.trunk(ids)
        return self.norm(self.blocks[-1](x, cos, sin))

    def hiddens(self, ids):
        """One normed stream a head: of the next token, of the one after, ..."""
        x, cos, sin = self.trunk(ids)
        return [self.norm(head(x, cos, sin)) for head in (self.blocks[-1], *self.extra)]

    def logits(self, hidden):
        return F.linear(hidden, self.embed.weight.to(hidden.dtype))

    def forward(self, ids, targets=None, reduction="mean"):
        logits = self.logits(self.hidden(ids))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)
        return loss.view(targets.shape) if reduction == "none" else loss

    def losses(self, ids, targets):
        """Mean loss of each head. targets: [batch, time + n_future - 1], so that head k has its own."""
        t = ids.shape[1]
        return torch.stack([F.cross_entropy(self.logits(h).flatten(0, 1).float(), targets[:, k:k + t].flatten())
                            for k, h in enumerate(self.hiddens(ids))])

    def count(self):
        return sum(p.numel() for p in self.parameters())


@torch.no_grad()
def generate(model, prompts, n, temperature=0.0, stop=0, seed=0):
    """Plain sampling without a cache; prompts are lists of ids, one at a time."""
    gen = torch.Generator(device=model.embed.weight.device).manual_seed(seed)
    out = []
    for ids in prompts:
        ids = torch.tensor([ids], device=model.embed.weight.device)
        for _ in range(n):
            logits = model(ids[:, -model.shape.context:])[:, -1].float()
            if temperature > 0:
                nxt = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=gen)
            else:
                nxt = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, nxt], 1)
            if nxt.item() == stop:
                break
        out.append(ids[0].tolist())
    return out
