"""Trains the `needle` fixture: a small decoder that finds a token in its context.

A prompt is filler with NEEDLES markers in it, each followed by a value, and ends in one of these markers again; the
answer is the value that followed it. Values are filler tokens too, so the model has to look up what came after the
marker: one layer attends by position, to the token before, and the next by content, to the place where the marker was
the token before. A cache with a wrong position, a lost token or a shifted head gives wrong answers.
"""

import torch

SHORTEST, LONGEST = 16, 96  # tokens of a prompt
NEEDLES = 4
MARKERS = 8  # the last ids of the vocabulary; all others are filler and values
STEPS = 2000
BATCH = 64
LEARNING_RATE = 3e-3


def make_contexts(count, length, vocab, generator):
    """Contexts [count, length] without a question, the markers in each [count, NEEDLES] and their values."""
    ids = torch.randint(vocab - MARKERS, (count, length), generator=generator)
    markers = vocab - 1 - torch.rand(count, MARKERS, generator=generator).argsort(-1)[:, :NEEDLES]
    # Two tokens apart at least, so that no marker takes the place of another's value.
    places = 2 * torch.rand(count, (length - 1) // 2, generator=generator).argsort(-1)[:, :NEEDLES]
    places += torch.randint(2, (count, 1), generator=generator)
    ids.scatter_(1, places, markers)
    return ids, markers, ids.gather(1, places + 1)


def make_prompts(count, vocab, generator, shortest=SHORTEST):
    """`count` pairs of a prompt, int64 [shortest to LONGEST], and its answer."""
    prompts = []
    for _ in range(count):
        length = int(torch.randint(shortest, LONGEST + 1, (1,), generator=generator))
        ids, markers, values = make_contexts(1, length - 1, vocab, generator)
        prompts.append((torch.cat([ids[0], markers[0, :1]]), int(values[0, 0])))
    return prompts


def train(model, generator):
    """Trains `model` in place, on contexts that grow in length, each followed by questions for all its needles."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)
    for step in range(STEPS):
        longest = SHORTEST + min(1.0, 1.6 * step / STEPS) * (LONGEST - SHORTEST)
        length = int(torch.randint(SHORTEST, int(longest) + 1, (1,), generator=generator)) - 1
        ids, markers, values = make_contexts(BATCH, length, model.config.vocab_size, generator)
        questions = torch.stack([markers, values], -1).flatten(1)[:, :-1]
        logits = model(torch.cat([ids, questions], 1)).logits[:, length::2]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), values.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
