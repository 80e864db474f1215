s/length = 1280 : i64, stored = tensor<8x40xf32>/length = 320 : i64, stored = tensor<40x16xui4>, transposed, window_offset = array<i64: 0, 0>, window_size = array<i64: 40, 8>, scales = #helix.bytes<file = "w", offset = 5000, length = 160, element = f32>/
s/tensor<8x40xf32>/tensor<8x40xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>/g
s/length = 768 : i64, stored = tensor<24x8xf32>/length = 128 : i64, stored = tensor<8x32xui4>, transposed, window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 24>, scales = #helix.bytes<file = "w", offset = 6000, length = 64, element = f32>/
s/tensor<24x8xf32>/tensor<24x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f32, zero = middle>>/g
s/length = 320 : i64, stored = tensor<10x8xf32>/length = 64 : i64, stored = tensor<8x16xui4>, transposed, window_offset = array<i64: 0, 0>, window_size = array<i64: 8, 10>, scales = #helix.bytes<file = "w", offset = 6500, length = 16, element = f16>, zero_points = #helix.bytes<file = "w", offset = 7000, length = 8, element = ui4>/
s/tensor<10x8xf32>/tensor<10x8xf32, #helix.quant<bits = 4, block = 16, axis = 0, scale = f16, zero = packed>>/g
