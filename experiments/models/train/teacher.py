"""The teacher: a Llama-architecture GGUF run as a batched sampler in PyTorch.

Every slot of the batch holds one text at its own position. A step feeds one
token to every slot; prompt tokens are forced, later ones are sampled (min-p,
temperature per slot). A finished slot is refilled while the others go on, and
the keys and values of a prefix shared by all prompts are kept. Tokens that
would repeat a run of earlier text lose logits with the length of the run, and
past a slot's wished length the end token gains logits after a sentence.
"""
import numpy as np
import torch
import torch.nn.functional as F

from gguf_io import GGUFReader

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU-only installs: the plain paths below are used
    triton = None

if triton is not None:
    @triton.jit
    def _decode_attention(q_ptr, k_ptr, v_ptr, kc_ptr, vc_ptr, pos_ptr, out_ptr, cache_len, scale,
                          HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, BN: tl.constexpr):
        """One (slot, kv head): stores the new key and value, attends over the cache."""
        b, h = tl.program_id(0), tl.program_id(1)
        group: tl.constexpr = HQ // HK
        d = tl.arange(0, D)
        g = tl.arange(0, 16)
        n = tl.arange(0, BN)
        pos = tl.load(pos_ptr + b)
        q = tl.load(q_ptr + (b * HQ + h * group + g[:, None]) * D + d[None, :],
                    mask=g[:, None] < group, other=0.0)
        k_new = tl.load(k_ptr + (b * HK + h) * D + d)
        v_new = tl.load(v_ptr + (b * HK + h) * D + d)
        base = (b * HK + h).to(tl.int64) * cache_len * D
        tl.store(kc_ptr + base + pos * D + d, k_new)
        tl.store(vc_ptr + base + pos * D + d, v_new)
        m = tl.sum(q.to(tl.float32) * k_new.to(tl.float32)[None, :], 1) * scale
        l = tl.full([16], 1.0, tl.float32)
        acc = tl.zeros([16, D], tl.float32) + v_new.to(tl.float32)[None, :]
        for start in range(0, pos, BN):
            at = start + n
            ok = at < pos
            k = tl.load(kc_ptr + base + at[:, None] * D + d[None, :], mask=ok[:, None], other=0.0)
            s = tl.dot(q, tl.trans(k)).to(tl.float32) * scale
            s = tl.where(ok[None, :], s, float("-inf"))
            m_new = tl.maximum(m, tl.max(s, 1))
            p = tl.exp(s - m_new[:, None])
            fade = tl.exp(m - m_new)
            v = tl.load(vc_ptr + base + at[:, None] * D + d[None, :], mask=ok[:, None], other=0.0)
            acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v)
            l = l * fade + tl.sum(p, 1)
            m = m_new
        out = acc / l[:, None]
        tl.store(out_ptr + (b * HQ + h * group + g[:, None]) * D + d[None, :],
                 out.to(out_ptr.dtype.element_ty), mask=g[:, None] < group)

    @triton.jit
    def _sample(logits_ptr, bias_ptr, temp_ptr, seed_ptr, out_ptr, log_min_p, V,
                BV: tl.constexpr):
        """Min-p sampling of one row by the Gumbel-max trick, in two passes."""
        b = tl.program_id(0)
        row = logits_ptr + b.to(tl.int64) * V
        j = tl.arange(0, BV)
        top = tl.full([BV], float("-inf"), tl.float32)
        for start in range(0, V, BV):
            at = start + j
            x = tl.load(row + at, mask=at < V, other=float("-inf")).to(tl.float32)
            top = tl.maximum(top, x + tl.load(bias_ptr + at, mask=at < V, other=float("-inf")))
        floor = tl.max(top, 0) + log_min_p
        inv_t = 1.0 / tl.load(temp_ptr + b)
        seed = tl.load(seed_ptr)
        best = tl.full([BV], float("-inf"), tl.float32)
        arg = tl.zeros([BV], tl.int32)
        for start in range(0, V, BV):
            at = start + j
            x = tl.load(row + at, mask=at < V, other=float("-inf")).to(tl.float32)
            x += tl.load(bias_ptr + at, mask=at < V, other=float("-inf"))
            u = tl.rand(seed, b * V + at)
            u = tl.minimum(tl.maximum(u, 1e-9), 0.9999999)
            score = tl.where(x >= floor, x * inv_t - tl.log(-tl.log(u)), float("-inf"))
            arg = tl.where(score > best, at, arg)
            best = tl.maximum(best, score)
        tl.store(out_ptr + b, tl.sum(tl.where(j == tl.argmax(best, 0), arg, 0), 0).to(tl.int64))


def _rms_norm(x, weight, eps):
    xf = x.float()
    return (xf * torch.rsqrt(xf.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def _rotate(x, cos, sin):
    """RoPE on adjacent pairs (the GGUF llama convention)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def _before_attention(x, norm, wqkv, cos, sin, hq, hk, d, eps):
    qkv = F.linear(_rms_norm(x, norm, eps), wqkv).unflatten(-1, (hq + 2 * hk, d))
    q, k, v = qkv.split((hq, hk, hk), 1)
    return _rotate(q, cos, sin).contiguous(), _rotate(k, cos, sin).contiguous(), v.contiguous()


def _after_attention(x, attn, wo, norm, wgu, wd, eps):
    x = x + F.linear(attn, wo)
    gate, up = F.linear(_rms_norm(x, norm, eps), wgu).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, wd)


class Teacher:
    REPEAT = (0.15, 0.7, 2.5, 8.0)  # logits lost when 1, 2, 3, 4 tokens in a row would repeat
    END_GAIN, END_MOST = 0.06, 14.0  # logits the end gains a token past the wished length

    def __init__(self, path, batch, max_len, device, allowed=None, min_p=0.06, random_weights=False,
                 sentence_ends=()):
        reader = GGUFReader(path) if not random_weights else None
        kv = reader.kv if reader else {
            "llama.block_count": 30, "llama.embedding_length": 576, "llama.feed_forward_length": 1536,
            "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3, "llama.vocab_size": 49152,
            "llama.rope.freq_base": 1e5, "llama.attention.layer_norm_rms_epsilon": 1e-5}
        self.layers, self.width = kv["llama.block_count"], kv["llama.embedding_length"]
        self.hq, self.hk = kv["llama.attention.head_count"], kv["llama.attention.head_count_kv"]
        self.d, self.vocab = self.width // self.hq, kv["llama.vocab_size"]
        self.eps = kv["llama.attention.layer_norm_rms_epsilon"]
        self.device, self.batch, self.max_len = torch.device(device), batch, max_len
        self.cuda = self.device.type == "cuda"
        dtype = torch.bfloat16 if self.cuda else torch.float32
        ff = kv["llama.feed_forward_length"]

        def get(name, *shape):
            if reader is None:
                fill = torch.ones(*shape) if len(shape) == 1 else torch.randn(*shape) * 0.02
                return fill.to(self.device, dtype)
            return torch.from_numpy(reader.tensor(name)).to(self.device, dtype)

        w, kvw = self.width, self.hk * self.d
        self.embed = get("token_embd.weight", self.vocab, w)
        self.norm = get("output_norm.weight", w)
        self.blocks = []
        for i in range(self.layers):
            p = f"blk.{i}."
            self.blocks.append((
                get(p + "attn_norm.weight", w),
                torch.cat([get(p + "attn_q.weight", w, w), get(p + "attn_k.weight", kvw, w),
                           get(p + "attn_v.weight", kvw, w)]),
                get(p + "attn_output.weight", w, w), get(p + "ffn_norm.weight", w),
                torch.cat([get(p + "ffn_gate.weight", ff, w), get(p + "ffn_up.weight", ff, w)]),
                get(p + "ffn_down.weight", w, ff)))
        freq = kv["llama.rope.freq_base"] ** -(torch.arange(0, self.d, 2).double() / self.d)
        angle = torch.arange(max_len).double()[:, None] * freq
        self.cos, self.sin = (t.float().to(self.device) for t in (angle.cos(), angle.sin()))
        cache = (self.layers, batch, self.hk, max_len, self.d)
        self.kc = torch.zeros(cache, dtype=dtype, device=self.device)
        self.vc = torch.zeros(cache, dtype=dtype, device=self.device)
        zeros = lambda *s, t=torch.int64: torch.zeros(*s, dtype=t, device=self.device)
        self.tok, self.pos, self.plen = zeros(batch), zeros(batch), zeros(batch)
        self.done = zeros(batch, t=torch.bool)
        self.seq = zeros(batch, max_len)
        self.temp = torch.ones(batch, device=self.device)
        self.seed = zeros(1)
        self.bias = torch.zeros(self.vocab, device=self.device)
        if allowed is not None:
            self.bias[~torch.from_numpy(allowed).to(self.device)] = float("-inf")
        self.begin, self.wish = zeros(batch), zeros(batch)
        self.ends = torch.zeros(self.vocab, device=self.device)
        self.ends[list(sentence_ends)] = 1.0
        # content words pay for coming again, the commonest words and signs do not
        # (glue); the inside of a word is free, and no run reaches over a line's end
        self.glue, self.inner, self.line = zeros(3, self.vocab, t=torch.bool)
        self.log_min_p = float(np.log(min_p))
        self.eos = kv.get("tokenizer.ggml.eos_token_id", 2)
        self.graph = None
        if self.cuda:
            self._before = torch.compile(_before_attention, dynamic=False)
            self._after = torch.compile(_after_attention, dynamic=False)
        else:
            self._before, self._after = _before_attention, _after_attention

    def _attend(self, i, q, k, v):
        if self.cuda:
            out = torch.empty_like(q)
            _decode_attention[(self.batch, self.hk)](
                q, k, v, self.kc[i], self.vc[i], self.pos, out, self.max_len, self.d ** -0.5,
                HQ=self.hq, HK=self.hk, D=self.d, BN=64, num_warps=2, num_stages=3)
            return out.flatten(1)
        rows = torch.arange(self.batch)
        self.kc[i][rows, :, self.pos] = k
        self.vc[i][rows, :, self.pos] = v
        n = int(self.pos.max()) + 1
        mask = (torch.arange(n)[None] <= self.pos[:, None])[:, None, None]
        out = F.scaled_dot_product_attention(q[:, :, None], self.kc[i][:, :, :n], self.vc[i][:, :, :n],
                                             attn_mask=mask, enable_gqa=True)
        return out.flatten(1)

    def _shape_logits(self, logits):
        """Repetition and ending rules, in place."""
        at = torch.arange(self.max_len, device=self.device)[None]
        same = (at >= self.begin[:, None]) & (at <= self.pos[:, None])  # candidates seq[at]
        same = same & ~self.inner[self.seq]
        loss = torch.where(same & ~self.glue[self.seq], self.REPEAT[0], 0.0)
        for back in (1, 2, 3):  # the tokens before `at` equal the last ones
            last = self.seq.gather(1, (self.pos - back + 1).clamp(min=0)[:, None])
            moved = F.pad(self.seq, (back, 0), value=-1)[:, :self.max_len]
            same = same & (moved == last) & ~self.line[last]
            loss = torch.where(same, self.REPEAT[back], loss)
        less = logits.gather(1, self.seq) - loss.to(logits.dtype)
        logits.scatter_reduce_(1, self.seq, less, "amin")
        gain = ((self.pos - self.begin - self.wish).float() * self.END_GAIN).clamp(0, self.END_MOST)
        logits[:, self.eos] += (gain * self.ends[self.tok]).to(logits.dtype)
        return logits

    def _pick(self, logits):
        if self.cuda:
            out = torch.empty_like(self.tok)
            _sample[(self.batch,)](logits, self.bias, self.temp, self.seed, out, self.log_min_p,
                                   self.vocab, BV=2048, num_warps=8)
            return out
        x = logits.float() + self.bias
        x = x.masked_fill(x < x.amax(-1, keepdim=True) + self.log_min_p, float("-inf"))
        return torch.multinomial(torch.softmax(x / self.temp[:, None], -1), 1)[:, 0]

    def _step(self):
        x = self.embed[self.tok]
        cos, sin = self.cos[self.pos], self.sin[self.pos]
        for i, (n1, wqkv, wo, n2, wgu, wd) in enumerate(self.blocks):
            q, k, v = self._before(x, n1, wqkv, cos, sin, self.hq, self.hk, self.d, self.eps)
            x = self._after(x, self._attend(i, q, k, v), wo, n2, wgu, wd, self.eps)
        logits = F.linear(_rms_norm(x, self.norm, self.eps), self.embed)
        drawn = self._pick(self._shape_logits(logits))
        at = self.pos + 1
        forced = at < self.plen
        nxt = torch.where(forced, self.seq.gather(1, at[:, None])[:, 0], drawn)
        nxt = torch.where(self.done, self.tok, nxt)
        self.seq.scatter_(1, at[:, None], nxt[:, None])
        self.tok.copy_(nxt)
        self.done |= (~forced & (nxt == self.eos)) | (at >= self.max_len - 2)
        self.pos += (~self.done).long()
        self.seed += 1

    @torch.no_grad()
    def prepare(self):
        """Compiles and captures the step; call it before the first fill."""
        if not self.cuda:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()
        torch.cuda.synchronize()

    def fill(self, slots, prompts, temps, begins, wishes, start=0):
        """Puts new prompts (lists of ids) in the slots.

        begins: where the text itself begins in each prompt; wishes: its wished
        length in tokens; start: length of a prefix whose cache is already there.
        """
        rows = np.zeros((len(slots), self.max_len), dtype=np.int64)
        for row, ids in zip(rows, prompts):
            row[:len(ids)] = ids
        slots = torch.as_tensor(slots, device=self.device)
        rows = torch.from_numpy(rows).to(self.device)
        self.seq[slots] = rows
        self.plen[slots] = torch.tensor([len(p) for p in prompts], device=self.device)
        self.pos[slots] = start
        self.tok[slots] = rows[:, start]
        self.temp[slots] = torch.tensor(temps, dtype=torch.float32, device=self.device)
        self.begin[slots] = torch.tensor(begins, device=self.device)
        self.wish[slots] = torch.tensor(wishes, device=self.device)
        self.done[slots] = False

    @torch.no_grad()
    def run(self, steps):
        for _ in range(steps):
            if self.graph is not None:
                self.graph.replay()
            else:
                self._step()

    def finished(self):
        """(slots, rows of ids, prompt lengths, last positions) of the texts that ended."""
        slots = self.done.nonzero()[:, 0]
        return (slots.cpu().numpy(), self.seq[slots].cpu().numpy(),
                self.plen[slots].cpu().numpy(), (self.pos[slots] + 1).cpu().numpy())
