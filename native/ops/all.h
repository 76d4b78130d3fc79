// The arguments of every operation.
#pragma once
#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/decode.h"
#include "ops/decoder_layer.h"
#include "ops/distill_loss.h"
#include "ops/gated_ffn.h"
#include "ops/linear.h"
#include "ops/mel.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/random.h"
#include "ops/rows.h"
